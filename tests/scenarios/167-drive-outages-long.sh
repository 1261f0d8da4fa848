#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# profile: full
# limit: 590
# As 166, for 60 s.
exec bash /mnt/tests/scenarios/166-drive-outages.sh 60
