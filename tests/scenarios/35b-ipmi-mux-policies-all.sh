#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# profile: full
# limit: 2400
# As 35, with every command on every LUN and several lengths of data.
export EVERYTHING=1
exec bash /mnt/tests/scenarios/35-ipmi-mux-policies.sh
