#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# profile: full
# limit: 200
# As 20, for callers of 32 bits.
export COMPAT="32-bit:--compat"
exec bash /mnt/tests/scenarios/20-ipmi-mux-ioctls.sh
