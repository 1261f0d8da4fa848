/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Two virtual clients of one virtual controller, each in a process of its own.
 *
 *     cc -o virtual-clients virtual-clients.c && ./virtual-clients /dev/ipmi/1 [COMMANDS]
 *
 * The parent reserves a range of sequence numbers for each child, hands it the token, and reserves
 * the command Get POH Counter (00/0f) for all three. Each child opens the node itself, attaches, and
 * asks COMMANDS times (40 unless told) for the BMC's clock and the counter. Meanwhile the parent sends
 * messages with the children's numbers: those answers reach the children too. Ends with 0 if each
 * process got exactly the answers that are its own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#if __has_include(<midplane/ipmi_mux.h>)
#include <midplane/ipmi_mux.h>
#else
#include "../include/ipmi_mux.h"
#endif

#define CHILDREN 2
#define ANSWER_LIMIT_MS 20000

static void die(const char *what)
{
	fprintf(stderr, "virtual-clients[%d]: %s: %s\n", (int)getpid(), what, strerror(errno));
	exit(1);
}

static void expect(int true, const char *what)
{
	if (true)
		return;
	fprintf(stderr, "virtual-clients[%d]: %s\n", (int)getpid(), what);
	exit(1);
}

static void send_command(int fd, unsigned char netfn, unsigned char cmd, long msgid)
{
	struct ipmi_system_interface_addr bmc = {
		.addr_type = IPMI_SYSTEM_INTERFACE_ADDR_TYPE,
		.channel = IPMI_BMC_CHANNEL,
	};
	struct ipmi_req request = {
		.addr = (unsigned char *)&bmc,
		.addr_len = sizeof(bmc),
		.msgid = msgid,
		.msg = { .netfn = netfn, .cmd = cmd },
	};

	if (ioctl(fd, IPMICTL_SEND_COMMAND, &request) < 0)
		die("cannot send");
}

/* Receives one answer, which must be there in time; returns its completion code. */
static int receive(int fd, long *msgid, int *cmd)
{
	struct ipmi_addr from;
	unsigned char data[IPMI_MAX_MSG_LENGTH];
	struct ipmi_recv answer = {
		.addr = (unsigned char *)&from,
		.addr_len = sizeof(from),
		.msg = { .data = data, .data_len = sizeof(data) },
	};
	struct pollfd ready = { .fd = fd, .events = POLLIN };

	expect(poll(&ready, 1, ANSWER_LIMIT_MS) == 1, "no answer");
	if (ioctl(fd, IPMICTL_RECEIVE_MSG_TRUNC, &answer) < 0)
		die("cannot receive");
	expect(answer.msg.data_len > 0, "an answer without completion code");
	*msgid = answer.msgid;
	*cmd = answer.msg.cmd;
	return data[0];
}

/* A child sends with even numbers of its range, its parent with odd ones. */
static void child(const char *node, struct ipmi_mux_sequence range, int commands, int attached)
{
	int fd = open(node, O_RDWR);
	int mine = 0, parents = 0;

	if (fd < 0)
		die(node);
	if (ioctl(fd, IPMI_MUX_ATTACH, &range) < 0)
		die("cannot attach");
	if (write(attached, "a", 1) != 1)
		die("cannot tell the parent");
	for (int at = 0; at < commands; at++)
		send_command(fd, at % 2 ? 0x00 : 0x0a, at % 2 ? 0x0f : 0x48,
			     range.first + 2 * at);
	while (mine < commands || parents < commands) {
		long msgid;
		int cmd, code = receive(fd, &msgid, &cmd);

		expect(msgid >= range.first && msgid < range.first + (long)range.count,
		       "an answer with another's number");
		expect(code == 0, "a command failed");
		if ((msgid - range.first) % 2) {
			expect(cmd == 0x01, "not what the parent asked");
			parents++;
		} else {
			expect(cmd == 0x0f || cmd == 0x48, "not what was asked");
			mine++;
		}
	}
	expect(mine == commands && parents == commands, "too many answers");
	printf("client %d got %d answers to its own and %d to its parent's messages\n", (int)getpid(), mine,
	       parents);
	exit(0);
}

int main(int argc, char **argv)
{
	int commands = argc > 2 ? atoi(argv[2]) : 40;
	struct ipmi_cmdspec counter = { .netfn = 0x00, .cmd = 0x0f };
	struct ipmi_mux_sequence ranges[CHILDREN];
	int fd, attached[2], status = 0;

	if (argc < 2 || commands < 1 || commands > 40) {
		fprintf(stderr, "usage: virtual-clients NODE [COMMANDS, at most 40]\n");
		return 2;
	}
	fd = open(argv[1], O_RDWR | O_CLOEXEC);
	if (fd < 0)
		die(argv[1]);
	if (ioctl(fd, IPMI_MUX_RESERVE_COMMAND, &counter) < 0)
		die("cannot reserve Get POH Counter");
	for (int at = 0; at < CHILDREN; at++) {
		ranges[at] = (struct ipmi_mux_sequence){ .count = 2 * commands };
		if (ioctl(fd, IPMI_MUX_RESERVE_SEQUENCE, &ranges[at]) < 0)
			die("cannot reserve sequence numbers");
	}
	if (pipe(attached) < 0)
		die("cannot make a pipe");
	for (int at = 0; at < CHILDREN; at++) {
		pid_t pid = fork();

		if (pid < 0)
			die("cannot fork");
		if (pid == 0)
			child(argv[1], ranges[at], commands, attached[1]);
	}
	close(attached[1]);
	for (int at = 0; at < CHILDREN; at++) {
		char byte;

		expect(read(attached[0], &byte, 1) == 1, "a client did not attach");
	}
	for (int at = 0; at < commands; at++)
		for (int to = 0; to < CHILDREN; to++)
			send_command(fd, 0x06, 0x01, ranges[to].first + 2 * at + 1);
	for (int at = 0; at < CHILDREN; at++) {
		int ended;

		wait(&ended);
		status |= ended;
	}
	if (ioctl(fd, IPMI_MUX_RELEASE_COMMAND, &counter) < 0)
		die("cannot release Get POH Counter");
	return status ? 1 : 0;
}
