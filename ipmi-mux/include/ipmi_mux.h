/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the nodes of ipmi-mux offer beside the ioctls of <linux/ipmi.h>. The kernel's own node answers
 * these with ENOTTY. ipmi-mux(4) tells more.
 */
#ifndef IPMI_MUX_H
#define IPMI_MUX_H

#include <linux/ioctl.h>
#include <linux/ipmi.h>
#include <linux/types.h>

/*
 * Reserves an IPMI command (network function of the request, and command) for this handle and those
 * that attach to it. All others get completion code D4 for it until it is released, or the last of
 * these handles is closed.
 *
 * EBUSY: another handle has it.
 * EPERM: the node's policy does not let its handles reserve, or not this command.
 * ENOSPC: too many commands are reserved.
 */
#define IPMI_MUX_RESERVE_COMMAND _IOW(IPMI_IOC_MAGIC, 0x80, struct ipmi_cmdspec)

/* Gives it back. ENOENT: this handle has no such reservation. */
#define IPMI_MUX_RELEASE_COMMAND _IOW(IPMI_IOC_MAGIC, 0x81, struct ipmi_cmdspec)

/* A range of message ids: first, first + 1, ... first + count - 1. */
struct ipmi_mux_sequence {
	__u32 count;     /* 1 to 1024 */
	__s32 first;
	__u8 token[16];
};

/*
 * Reserves count message ids and says which, and a token for one virtual client. Whoever of the
 * handles that belong together sends a message with one of these ids: its answer goes to the
 * handle that attached with the token. While there is none it goes to the sender.
 *
 * EINVAL: count is 0 or over 1024.
 * ENOSPC: too many ranges are reserved.
 */
#define IPMI_MUX_RESERVE_SEQUENCE _IOWR(IPMI_IOC_MAGIC, 0x82, struct ipmi_mux_sequence)

/* Gives the range that begins with first back. ENOENT: this handle has none that does. */
#define IPMI_MUX_RELEASE_SEQUENCE _IOW(IPMI_IOC_MAGIC, 0x83, struct ipmi_mux_sequence)

/*
 * Makes this handle the virtual client of the range whose token is given; first and count are filled in.
 * From here on it belongs to the virtual controller of the handle that reserved the range: it may use
 * the commands reserved there, and what it held alone before is given back.
 *
 * ENOENT: no range has this token.
 * EBUSY: the range has a virtual client, or is this handle's own.
 */
#define IPMI_MUX_ATTACH _IOWR(IPMI_IOC_MAGIC, 0x84, struct ipmi_mux_sequence)

#endif
