"""`python -m infra.cli`: how Proxima starts itself as a child process, whatever `proxima` is on the PATH."""

from infra.cli import main

main()
