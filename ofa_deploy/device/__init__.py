"""What runs on the device that is measured: on this machine or, carried there by a bundle, on another one.

The package is an island, since a bundle carries all of it: its modules need Python 3.9, numpy and one runtime, which
they import when a session starts, and of ofa-deploy only what `latency.bundle.MODULES` lists: `errors`, `progress`, and
some of `files`. What writes model files is therefore in `graphs`. `devices.DEVICES` has a record for each device, and
each runtime is a module.
"""
