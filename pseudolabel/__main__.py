"""`python -m pseudolabel`, and what `accelerate launch -m pseudolabel` runs."""

import sys

if __name__ == "__main__":
    from pseudolabel.runtime.watchdog import end_with_launcher

    end_with_launcher()  # before the imports, which take a while

    from pseudolabel.cli import main

    sys.exit(main())
