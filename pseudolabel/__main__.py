"""`python -m pseudolabel`, and what `accelerate launch -m pseudolabel` runs."""

import sys

from pseudolabel.cli import main

if __name__ == "__main__":
    sys.exit(main())
