"""`python -m cifar_lightning`."""

import sys

from cifar_lightning.cli import main

sys.exit(main())
