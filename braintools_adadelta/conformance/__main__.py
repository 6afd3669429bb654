import sys

from braintools_adadelta.conformance.command import main

sys.exit(main())
