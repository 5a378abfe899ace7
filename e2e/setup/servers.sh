#!/usr/bin/env bash
# Server programs that health checks are shown against.
exec "$(dirname "${BASH_SOURCE[0]}")/packages.sh" servers
