"""`python -m ofa_deploy`."""

from ofa_deploy.cli import main

main()
