import sys

from ptr_robot.cli import main

sys.exit(main())
