"use strict";
(() => {
  const { networks, spaces } = JSON.parse(document.getElementById("data").textContent);
  const tip = document.querySelector(".tip");
  const make = (name, words) => Object.assign(document.createElement(name), { textContent: words });
  const row = ([name, value], first, second) => {
    const made = make("div", "");
    made.append(make(first, name), make(second, value));
    return made;
  };
  const visible = (dot) => dot.getClientRects().length > 0;
  const dotsOf = (svg) => [...svg.querySelectorAll("circle[data-n]")].filter(visible);
  const where = (dot) => [dot.cx.baseVal.value, dot.cy.baseVal.value];

  function nearest(svg, event) {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    let best = null;
    let least = event.pointerType === "touch" ? 26 : 14;
    for (const dot of dotsOf(svg)) {
      const [x, y] = where(dot);
      const far = Math.hypot(x - at.x, y - at.y) - dot.r.baseVal.value;
      if (far <= least) [best, least] = [dot, far];
    }
    return best;
  }

  function mark(ring, dot) {
    const [x, y] = dot ? where(dot) : [0, 0];
    ring.setAttribute("cx", x);
    ring.setAttribute("cy", y);
    ring.setAttribute("r", dot ? dot.r.baseVal.value + 3.5 : 0);
  }

  function show(svg, dot) {
    mark(svg.querySelector(".ring:not(.pin)"), dot);
    svg.current = dot;
    tip.hidden = !dot;
    if (!dot) return;
    const net = networks[dot.dataset.n];
    tip.replaceChildren(make("b", net.title), ...net.figures.map((pair) => row(pair, "span", "span")));
    const box = dot.getBoundingClientRect();
    const main = tip.parentElement.getBoundingClientRect();
    const left = Math.min(Math.max(box.left + 16, 8), innerWidth - tip.offsetWidth - 8);
    const over = box.top - tip.offsetHeight - 12;
    tip.style.left = `${left - main.left}px`;
    tip.style.top = `${(over > 4 ? over : box.bottom + 12) - main.top}px`;
  }

  function fill(net, drawing) {
    const [size, ...stages] = net.arch.split("_").filter((part) => part[0] !== "w");
    const { kernels, expands } = spaces[net.space];
    drawing.querySelector(".size").textContent = `${size.slice(1)}×${size.slice(1)}`;
    drawing.setAttribute("aria-label", net.arch);
    const widths = drawing.querySelector(".widths");
    if (widths) widths.textContent = `widths ${net.arch.split("_")[1].slice(1).replaceAll("-", ", ")}`;
    drawing.querySelectorAll(".slots").forEach((slots, i) => {
      const blocks = stages[i] === "0" ? [] : stages[i].split("-");
      [...slots.children].forEach((slot, j) => {
        const bar = make("i", "");
        const [kernel, expand] = blocks[j] ? blocks[j].slice(1).split("e").map(Number) : [];
        if (blocks[j]) {
          bar.textContent = kernel;
          bar.className = `k${kernels.indexOf(kernel)}`;
          bar.style.setProperty("--share", expand / expands[expands.length - 1]);
        }
        slot.replaceChildren(bar, make("span", blocks[j] ? `×${expand}` : ""));
      });
    });
  }

  function pin(svg, dot) {
    const figure = svg.closest("figure");
    const card = figure.querySelector(".pinned");
    for (const other of figure.querySelectorAll("svg")) {
      mark(other.querySelector(".pin"), dot && other.querySelector(`circle[data-n="${dot.dataset.n}"]`));
    }
    card.hidden = !dot;
    if (!dot) return;
    const net = networks[dot.dataset.n];
    card.querySelector("h3").textContent = net.title;
    card.querySelector("dl").replaceChildren(
      ...net.figures.map((pair) => row(pair, "dt", "dd")),
    );
    card.querySelector("code").textContent = net.arch;
    const blank = [...document.querySelectorAll(".card:not(.pinned) .net")].find((n) => n.dataset.space === net.space);
    const drawing = blank.cloneNode(true);
    fill(net, drawing);
    card.querySelector(".net").replaceWith(drawing);
  }

  for (const svg of document.querySelectorAll("figure.chart svg")) {
    svg.addEventListener("pointermove", (event) => show(svg, nearest(svg, event)));
    svg.addEventListener("pointerleave", () => show(svg, null));
    svg.addEventListener("blur", () => show(svg, null));
    svg.addEventListener("click", (event) => {
      const dot = nearest(svg, event);
      show(svg, dot);
      pin(svg, dot);
    });
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Enter" && svg.current) pin(svg, svg.current);
      if (!step) return;
      event.preventDefault();
      const all = dotsOf(svg).filter((dot) => !dot.closest(".random"));
      all.sort((a, b) => where(a)[0] - where(b)[0]);
      const next = all.indexOf(svg.current) + step;
      show(svg, all[(next + all.length) % all.length] || null);
    });
  }

  for (const button of document.querySelectorAll("button[data-toggles]")) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", on);
      for (const part of button.closest("figure").querySelectorAll(`svg ${button.dataset.toggles}`)) {
        part.classList.toggle("off", !on);
      }
    });
  }
})();
