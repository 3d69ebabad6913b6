import sys

from tempclr.cli import main

sys.exit(main())
