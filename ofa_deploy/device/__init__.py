"""What runs on the device that is measured, on this one or, in a bundle, on one that is elsewhere.

Modules here need Python 3.9, numpy and the runtime, and of ofa-deploy only `errors`, `artifacts`, `partials`,
`progress`.
"""
