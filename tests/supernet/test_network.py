"""The elastic network and what is cut out of it."""

import ast
import copy
import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ofa_deploy.errors import ArchError, ArtifactError
from ofa_deploy.spaces.arch import Arch
from ofa_deploy.spaces.families import SPACES, get_space
from ofa_deploy.spaces.space import SearchSpace
from ofa_deploy.supernet import checkpoint
from ofa_deploy.supernet.depthwise import depthwise_conv
from ofa_deploy.supernet.network import Supernet
from ofa_deploy.supernet.recalibration import BatchStatistics, pieces_of, recalibrate


def noise(n: int, arch: Arch, channels: int = 1, seed: int = 5) -> torch.Tensor:
    return torch.randn(n, channels, arch.resolution, arch.resolution, generator=torch.Generator().manual_seed(seed))


OFFICIAL = {
    "mbv3-w1.0": ("mbv3_w1.0", 7.679),
    "mbv3-w1.2": ("mbv3_w1.2", 10.716),
    "proxyless-w1.3": ("proxyless_w1.3", 7.957),
    "resnet50d": ("resnet50", 48.106),
}


def official(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an official state dict."""
    lines = (Path(__file__).parents[1] / "data" / f"state_dict_ofa_{OFFICIAL[name][0]}.txt").read_text().splitlines()
    return {key: ast.literal_eval(shape) for key, shape, _ in (line.split("\t") for line in lines)}


@pytest.mark.parametrize("name", OFFICIAL)
def test_state_dict_is_the_official_one(name: str) -> None:
    net = Supernet(get_space(name))
    assert [(key, tuple(value.shape)) for key, value in net.state_dict().items()] == list(official(name).items())
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(OFFICIAL[name][1], abs=5e-4)


@pytest.mark.parametrize("name", SPACES)
def test_subnet_computes_exactly_what_the_supernet_does(name: str) -> None:
    space = get_space(name)
    net = Supernet(space).initialise(0)
    drawn = space.archs(space.sample(np.random.default_rng(0), 20 if name == "fmnist" else 2))
    for arch in [*drawn, space.extreme(largest=True), space.extreme(largest=False)]:
        arch = dataclasses.replace(arch, resolution=space.resolutions[0])
        x = noise(2, arch, space.in_channels)
        net.train()
        with torch.no_grad():
            net(x, arch)
            net.eval()
            plain = net.subnet(arch)
            assert (net(x, arch) - plain(x)).abs().max() == 0
        assert sum(p.numel() for p in plain.parameters()) == space.params(space.genes([arch]))[0]


def test_subnet_is_independent(space: SearchSpace) -> None:
    net = Supernet(space).initialise(0).eval()
    arch = space.extreme(largest=False)
    plain, x = net.subnet(arch), noise(2, arch)
    before = net(x, arch)
    with torch.no_grad():
        for p in plain.parameters():
            p.zero_()
    assert (net(x, arch) == before).all()
    assert all(p.requires_grad for p in plain.parameters())


def test_evaluation_never_uses_old_weights(space: SearchSpace) -> None:
    """Outside training a block keeps the slices of its last call: only while they are true."""
    net = trained_norms(Supernet(space).initialise(0))
    arch, other = space.extreme(largest=False), trained_norms(Supernet(space).initialise(1)).state_dict()
    x = noise(2, arch)
    name = "blocks.1.conv.depth_conv.conv.conv.weight"

    def changed_in_place() -> None:
        net.get_parameter(name).mul_(1.5)

    def matrix_changed() -> None:
        net.get_parameter("blocks.1.conv.depth_conv.conv.5to3_matrix").mul_(1.5)

    def statistics_changed() -> None:
        net.get_buffer("blocks.2.conv.depth_conv.bn.bn.running_mean").add_(0.5)

    def loaded() -> None:
        net.load_state_dict(other)

    def assigned() -> None:
        net.load_state_dict({k: v * 1.25 if v.ndim == 4 else v for k, v in other.items()}, assign=True)

    def assigned_then_changed() -> None:
        net.get_parameter(name).mul_(0.5)

    with torch.no_grad():
        last = net(x, arch)
        for change in (changed_in_place, matrix_changed, statistics_changed, loaded, assigned, assigned_then_changed):
            change()
            now = net(x, arch)
            assert not torch.equal(now, last), change.__name__
            assert torch.equal(now, net.subnet(arch)(x)), change.__name__
            assert torch.equal(now, net(x, arch)), change.__name__
            last = now
        last = net(x, arch)
        net.initialise(7)
        assert torch.equal(net(x, arch), net.subnet(arch)(x))
        block = net.get_submodule("blocks.1.conv.depth_conv.conv.conv")
        block.weight = nn.Parameter(block.get_parameter("weight") * 2)
        assert torch.equal(net(x, arch), net.subnet(arch)(x))
        again = copy.deepcopy(net)
        again.get_parameter(name).mul_(0.5)
        assert torch.equal(again(x, arch), again.subnet(arch)(x))
        with torch.autocast("cpu", torch.bfloat16):
            net(x, arch)
        assert torch.equal(net(x, arch), net.subnet(arch)(x))
        assert net.double()(x.double(), arch).dtype == torch.float64
    with torch.inference_mode():
        made_here = Supernet(space).initialise(0).eval()
        assert torch.equal(made_here(x, arch), made_here.subnet(arch)(x))


def test_small_kernels_are_the_centre_at_start(space: SearchSpace) -> None:
    net = Supernet(space).initialise(0)
    full = net.get_parameter("blocks.1.conv.depth_conv.conv.conv.weight")
    arch = Arch(28, space.extreme(largest=False).stages)
    small = net.subnet(arch).get_parameter("blocks.1.conv.depth_conv.conv.weight")
    assert torch.equal(small, full[: len(small), :, 2:5, 2:5])


def test_kernel_matrices_chain(space: SearchSpace) -> None:
    net = Supernet(space).initialise(0)
    conv = net.get_submodule("blocks.1.conv.depth_conv.conv")
    five, three = conv.get_parameter("7to5_matrix"), conv.get_parameter("5to3_matrix")
    with torch.no_grad():
        five.copy_(torch.randn(25, 25))
        three.copy_(torch.randn(9, 9))
    full = conv.get_parameter("conv.weight")[:8]
    expected5 = (full[:, 0, 1:6, 1:6].reshape(8, 25) @ five.T).reshape(8, 5, 5)
    expected3 = (expected5[:, 1:4, 1:4].reshape(8, 9) @ three.T).reshape(8, 3, 3)
    stages = space.extreme(largest=False).stages
    for kernel, expected in ((5, expected5), (3, expected3)):
        arch = Arch(28, (((kernel, 3), *stages[0][1:]), *stages[1:]))
        got = net.subnet(arch).get_parameter("blocks.1.conv.depth_conv.conv.weight")[:8, 0]
        assert torch.allclose(got, expected, atol=1e-6)


def test_gradients_reach_only_the_active_part(space: SearchSpace) -> None:
    net = Supernet(space).initialise(0)
    arch = space.extreme(largest=False)
    net(noise(4, arch), arch).sum().backward()
    grad = net.get_parameter("blocks.1.conv.inverted_bottleneck.conv.conv.weight").grad
    active = space.ops(arch)[2].c_mid
    assert grad is not None
    assert grad[:active].abs().sum() > 0
    assert grad[active:].abs().sum() == 0
    assert net.get_parameter("blocks.4.conv.point_linear.conv.conv.weight").grad is None


def test_images_of_another_size_are_refused(space: SearchSpace) -> None:
    with pytest.raises(ArchError, match="28 x 28"):
        Supernet(space)(torch.zeros(1, 1, 28, 28), space.extreme(largest=False))


def test_recalibration_by_hand() -> None:
    bn = nn.BatchNorm2d(2)
    statistics = BatchStatistics(bn)
    batches = [torch.randn(4, 2, 3, 3) * 2 + 1, torch.randn(2, 2, 3, 3)]
    for batch in batches:
        bn(batch)
    statistics.freeze()
    weights = torch.tensor([4.0, 2.0]) / 6
    mean = sum(w * b.mean((0, 2, 3)) for w, b in zip(weights, batches, strict=True))
    var = sum(w * b.var((0, 2, 3), correction=0) for w, b in zip(weights, batches, strict=True))
    assert torch.allclose(bn.running_mean, mean, atol=1e-6)  # type: ignore[arg-type]
    assert torch.allclose(bn.running_var, var, atol=1e-6)  # type: ignore[arg-type]
    assert not bn.training
    assert bn.momentum == 0.1
    with pytest.raises(ValueError, match="at least one image"):
        BatchStatistics(bn).freeze()


@pytest.mark.parametrize("name", ["fmnist", "mbv3-w1.0", "proxyless-w1.3", "resnet50d"])
def test_recalibration_in_pieces_is_that_of_the_whole_batch(name: str) -> None:
    space = get_space(name)
    arch = space.extreme(largest=True, resolution=space.resolutions[0])
    net = Supernet(space).initialise(0)
    batches = [noise(7, arch, space.in_channels, seed) for seed in (0, 1)]
    recalibrated = []
    for pixels in (10**9, 3 * arch.resolution**2):
        plain = net.subnet(arch)
        recalibrate(plain, batches, piece_pixels=pixels)
        assert [len(piece) for piece in pieces_of(batches[0], pixels)] == ([7] if pixels == 10**9 else [3, 3, 1])
        recalibrated.append(plain.requires_grad_(False))
    whole, pieces = (dict(plain.named_buffers()) for plain in recalibrated)
    for key, expected in whole.items():
        assert torch.allclose(pieces[key], expected, rtol=1e-3, atol=1e-4), key
    x = noise(2, arch, space.in_channels)
    a, b = (plain(x) for plain in recalibrated)
    assert torch.allclose(a, b, atol=1e-3 * float(a.abs().max()))


def test_recalibration_normalises_with_the_batch(space: SearchSpace) -> None:
    """Deeper norms see what batch statistics make of the layers before, whatever was stored there."""
    arch = space.extreme(largest=False)
    results = []
    for stored in (1.0, 1e6):
        plain = Supernet(space).initialise(0).subnet(arch)
        for module in plain.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.get_buffer("running_var").fill_(stored)
        recalibrate(plain, [noise(8, arch)])
        results.append(plain(noise(2, arch)))
    assert torch.equal(*results)


def test_weights_round_trip(tmp_path: Path, space: SearchSpace) -> None:
    net = Supernet(space).initialise(3)
    checkpoint.save(tmp_path / "w.safetensors", net, {"note": "x"})
    for again in (
        checkpoint.load_supernet(tmp_path / "w.safetensors", space),
        checkpoint.load_supernet(str(tmp_path / "w.safetensors")),
    ):
        assert again.space == space
        assert all(torch.equal(again.state_dict()[k], v) for k, v in net.state_dict().items())
    with pytest.raises(ArtifactError, match="of the space fmnist, not of fmnist-7classes"):
        checkpoint.load_supernet(tmp_path / "w.safetensors", get_space("fmnist-7classes"))
    unnamed = dataclasses.replace(space, name="unnamed")
    checkpoint.save(tmp_path / "w.safetensors", Supernet(unnamed), {})
    with pytest.raises(ArtifactError, match="not known here .*unnamed.*name it as `space`"):
        checkpoint.load_supernet(tmp_path / "w.safetensors")
    assert checkpoint.load_supernet(tmp_path / "w.safetensors", unnamed).space == unnamed


def test_weights_must_fit_whole(space: SearchSpace) -> None:
    net = Supernet(space).initialise(3)
    state = dict(net.state_dict())
    nan = state | {"classifier.linear.bias": torch.full((10,), float("nan"))}
    wrong = state | {"classifier.linear.bias": torch.zeros(9)}
    lacks = {k: v for k, v in state.items() if k != "classifier.linear.bias"}
    for bad, word in (
        (nan, "not finite"),
        (wrong, "another shape"),
        (lacks, "missing"),
        (state | {"x": nan["classifier.linear.bias"][:0]}, "unexpected"),
    ):
        with pytest.raises(ArtifactError, match=f"{word}: (classifier.linear.bias|x)"):
            checkpoint.fill(net, bad, Path("w"))


def test_same_seed_same_weights(space: SearchSpace) -> None:
    a, b, c = (Supernet(space).initialise(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["first_conv.conv.weight"], c["first_conv.conv.weight"])


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("keep", [False, True])
def test_sorting_channels_keeps_the_function(name: str, *, keep: bool) -> None:
    space = get_space(name)
    net = trained_norms(Supernet(space).initialise(0))
    largest = space.extreme(largest=True, resolution=space.resolutions[0])
    part = space.largest_choices(1, 1, 2, 2).extreme(largest=False, resolution=space.resolutions[0])
    x = noise(2, largest, space.in_channels)
    with torch.no_grad():
        before = [net(x, arch) for arch in (largest, part)]
        weights = {name: value.clone() for name, value in net.state_dict().items()}
        net.sort_channels(space.largest_choices(1, 1, 2, 2) if keep else None)
        after = [net(x, arch) for arch in (largest, part)]
    scale = [float(value.abs().max()) for value in before]
    differ = [float((a - b).abs().max()) / s for a, b, s in zip(after, before, scale, strict=True)]
    assert differ[0] < 1e-6
    assert (differ[1] < 1e-6) == keep
    assert any(not torch.equal(weights[name], value) for name, value in net.state_dict().items())
    block = space.slots[-1].name
    groups = space.largest_choices(1, 1, 2, 2) if keep else space.largest_choices(1, 1, 1, 1)
    ends = sorted({op.c_mid for op in groups.slots[-1].all_ops(128)})
    reader = f"{block}.conv3.conv.conv.weight" if name == "resnet50d" else f"{block}.conv.point_linear.conv.conv.weight"
    importance = net.get_parameter(reader).abs().sum((0, 2, 3))
    for start, end in itertools.pairwise([0, *ends]):
        assert (importance[start:end].diff() <= 0).all()


def test_smallest_network_gets_the_important_channels(space: SearchSpace) -> None:
    """Sorting brings the function of a narrower network closer to the whole one's."""
    net = trained_norms(Supernet(space).initialise(0))
    with torch.no_grad():  # a third of the channels, strewn about, hardly matters
        for name, p in net.named_parameters():
            if name.endswith("point_linear.conv.conv.weight"):
                p[:, ::3] *= 1e-3
        largest = space.extreme(largest=True)
        narrow = space.largest_choices(1, 1, 2, 1).extreme(largest=False, resolution=largest.resolution)
        x = noise(4, largest)
        far = (net(x, narrow) - net(x, largest)).abs().mean()
        net.sort_channels()
        near = (net(x, narrow) - net(x, largest)).abs().mean()
    assert near < 0.5 * far


def trained_norms(net: Supernet) -> Supernet:
    """Give batch norms and biases values that a permutation would show."""
    generator = torch.Generator().manual_seed(1)
    for name, value in net.state_dict().items():
        if ("bn." in name and value.ndim) or name.endswith("bias"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return net.eval()


@pytest.mark.parametrize(("size", "kernel", "stride"), [(4, 7, 1), (7, 7, 2), (7, 5, 1), (9, 5, 2), (14, 7, 1)])
def test_depthwise_gradients_are_pytorchs(size: int, kernel: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 16, size, size, generator=generator).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(16, 1, kernel, kernel, generator=generator, requires_grad=True)
    ours = depthwise_conv(x, weight, stride)
    theirs = nn.functional.conv2d(x, weight, None, stride, kernel // 2, groups=16)
    assert torch.equal(ours, theirs)
    grad = torch.randn(ours.shape, generator=generator)
    for a, b in zip(*(torch.autograd.grad(y, (x, weight), grad) for y in (ours, theirs)), strict=True):
        assert (a - b).abs().max() < 1e-5 * b.abs().max()
