// SPDX-License-Identifier: MIT OR Apache-2.0
// What ioctl-table calls with: memory that shows a wrong access, and the messages of linux/ipmi.h in
// the layout of a 64-bit or a 32-bit caller (compat_ipmi_* in drivers/char/ipmi/ipmi_devintf.c).
//
// Every call returns as a system call does inside the kernel: a result, or the errno made negative.
#ifndef IPMI_CALL_H
#define IPMI_CALL_H

#include <errno.h>
#include <linux/ipmi.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

// IPMI_MAX_MSG_LENGTH of linux/ipmi_msgdefs.h is the longest message, bytes; this is the longest address.
#define ADDR_MAX ((uint32_t)sizeof(struct ipmi_addr))

// Call as a 32-bit program does: `int $0x80`, small layouts, all memory below 4 GiB.
static bool compat;

enum slot { ARG, ADDR, DATA, SLOTS };

// Longest buffer a 16-bit length can claim fits.
#define SLOT_SIZE 0x11000

static unsigned char *slots[SLOTS];

// Each slot is followed by a page that nobody may touch: what is placed at its end cannot be overrun unseen.
static void make_slots(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	int low = 0;
#ifdef MAP_32BIT
	low = compat ? MAP_32BIT : 0;
#endif
	for (int i = 0; i < SLOTS; i++) {
		void *m = mmap(NULL, SLOT_SIZE + page, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | low, -1, 0);
		if (m == MAP_FAILED || mprotect((char *)m + SLOT_SIZE, page, PROT_NONE)) {
			perror("ioctl-table: no memory");
			exit(1);
		}
		slots[i] = m;
	}
}

static void protect_slots(int protection)
{
	for (int i = 0; i < SLOTS; i++)
		mprotect(slots[i], SLOT_SIZE, protection);
}

// Where an argument is, seen from the kernel.
enum place {
	GOOD,
	NOWHERE, // a null pointer
	HOLE,	 // a page that may not be touched
	KERNEL,	 // not user space at all
	CUT,	 // all but the last byte is there
};

static uintptr_t at(enum slot slot, enum place place, size_t len)
{
	uintptr_t end = (uintptr_t)slots[slot] + SLOT_SIZE;

	switch (place) {
	case NOWHERE:
		return 0;
	case HOLE:
		return end;
	case KERNEL:
		return compat ? 0xfffff000u : (uintptr_t)-0x100000;
	case CUT:
		return end - len + 1;
	case GOOD:
		break;
	}
	return end - len;
}

static int call(int fd, unsigned long number, uintptr_t arg)
{
#ifdef __x86_64__
	if (compat) {
		long rc;
		__asm__ volatile("int $0x80"
				 : "=a"(rc)
				 : "0"(54L), "b"((long)fd), "c"(number), "d"(arg)
				 : "memory", "cc", "r8", "r9", "r10", "r11");
		return (int)rc;
	}
#endif
	int rc = ioctl(fd, number, arg);
	return rc < 0 ? -errno : rc;
}

// A call with an argument without pointers, which is written back.
static int call_with(int fd, unsigned long number, void *value, size_t len)
{
	void *there = (void *)at(ARG, GOOD, len);
	memcpy(there, value, len);
	int rc = call(fd, number, (uintptr_t)there);
	memcpy(value, there, len);
	return rc;
}

struct small_msg {
	uint8_t netfn, cmd;
	uint16_t data_len;
	uint32_t data;
};
struct small_req {
	uint32_t addr, addr_len;
	int32_t msgid;
	struct small_msg msg;
};
struct small_req_settime {
	struct small_req req;
	int32_t retries;
	uint32_t retry_time_ms;
};
struct small_recv {
	int32_t recv_type;
	uint32_t addr, addr_len;
	int32_t msgid;
	struct small_msg msg;
};

#define SMALL_SEND _IOR(IPMI_IOC_MAGIC, 13, struct small_req)
#define SMALL_SEND_SETTIME _IOR(IPMI_IOC_MAGIC, 21, struct small_req_settime)
#define SMALL_RECEIVE _IOWR(IPMI_IOC_MAGIC, 12, struct small_recv)
#define SMALL_RECEIVE_TRUNC _IOWR(IPMI_IOC_MAGIC, 11, struct small_recv)

// `struct ipmi_addr` and its kin: they differ in what `rest` holds.
struct address {
	int32_t type;
	int16_t channel;
	uint8_t rest[34];
};
_Static_assert(sizeof(struct address) == sizeof(struct ipmi_addr), "as long as the longest");

struct request {
	struct address to;
	uint32_t addr_len;
	enum place addr_at;
	long long msgid;
	uint8_t netfn, cmd;
	uint16_t data_len;
	enum place data_at;
	bool settime;
	int retries;
	unsigned int retry_ms;
	bool small; // layout of a 32-bit caller
};

// Puts the request where the kernel will look for it; returns its length.
static size_t put_request(const struct request *r)
{
	uintptr_t addr = at(ADDR, r->addr_at, r->addr_len), data = at(DATA, r->data_at, r->data_len);

	if (r->addr_at == GOOD && r->addr_len <= SLOT_SIZE) {
		size_t known = r->addr_len < sizeof r->to ? r->addr_len : sizeof r->to;
		memset((void *)addr, 0, r->addr_len);
		memcpy((void *)addr, &r->to, known);
	}
	if (r->data_at == GOOD)
		memset((void *)data, 0, r->data_len);
	if (r->small) {
		struct small_req_settime s = {
			{ (uint32_t)addr, r->addr_len, (int32_t)r->msgid,
			  { r->netfn, r->cmd, r->data_len, (uint32_t)data } },
			r->retries, r->retry_ms,
		};
		size_t len = r->settime ? sizeof s : sizeof s.req;
		memcpy((void *)at(ARG, GOOD, len), &s, len);
		return len;
	}
	struct ipmi_req_settime w = {
		.req = { .addr = (unsigned char *)addr,
			 .addr_len = r->addr_len,
			 .msgid = (long)r->msgid,
			 .msg = { r->netfn, r->cmd, r->data_len, (unsigned char *)data } },
		.retries = r->retries,
		.retry_time_ms = r->retry_ms,
	};
	size_t len = r->settime ? sizeof w : sizeof w.req;
	memcpy((void *)at(ARG, GOOD, len), &w, len);
	return len;
}

static int send_request(int fd, const struct request *r)
{
	unsigned long wide = r->settime ? IPMICTL_SEND_COMMAND_SETTIME : IPMICTL_SEND_COMMAND;
	unsigned long small = r->settime ? SMALL_SEND_SETTIME : SMALL_SEND;
	size_t len = put_request(r);

	return call(fd, r->small ? small : wide, at(ARG, GOOD, len));
}

struct message {
	int recv_type;
	long long msgid;
	uint8_t netfn, cmd;
	uint16_t data_len;
	uint32_t addr_len;
	struct address from;
	uint8_t data[IPMI_MAX_MSG_LENGTH];
};

// Where a caller wants a message, and how much room it says there is.
struct room {
	enum place arg_at, addr_at, data_at;
	uint32_t addr_len;
	uint16_t data_len;
	size_t addr_mapped, data_mapped; // room there really is, where it is less; 0: as much
	bool trunc;
	bool small;
};

static int receive(int fd, const struct room *room, struct message *m)
{
	size_t addr_room = room->addr_mapped ? room->addr_mapped : room->addr_len;
	size_t data_room = room->data_mapped ? room->data_mapped : room->data_len;
	uintptr_t addr = at(ADDR, room->addr_at, addr_room), data = at(DATA, room->data_at, data_room);
	struct ipmi_recv w = {
		.addr = (unsigned char *)addr,
		.addr_len = room->addr_len,
		.msg = { .data_len = room->data_len, .data = (unsigned char *)data },
	};
	struct small_recv s = {
		.addr = (uint32_t)addr,
		.addr_len = room->addr_len,
		.msg = { .data_len = room->data_len, .data = (uint32_t)data },
	};
	size_t len = room->small ? sizeof s : sizeof w;
	uintptr_t arg = at(ARG, room->arg_at, len), good = at(ARG, GOOD, len);
	unsigned long wide = room->trunc ? IPMICTL_RECEIVE_MSG_TRUNC : IPMICTL_RECEIVE_MSG;
	unsigned long small = room->trunc ? SMALL_RECEIVE_TRUNC : SMALL_RECEIVE;

	memcpy((void *)good, room->small ? (void *)&s : (void *)&w, len);
	int rc = call(fd, room->small ? small : wide, arg);
	memset(m, 0, sizeof *m);
	// Where the call fails, what it leaves in the caller's memory means nothing.
	if (rc && !(rc == -EMSGSIZE && room->trunc))
		return rc;
	memcpy(room->small ? (void *)&s : (void *)&w, (void *)good, len);
	*m = room->small ? (struct message){ s.recv_type, s.msgid, s.msg.netfn, s.msg.cmd,
					     s.msg.data_len, s.addr_len, { 0 }, { 0 } }
			 : (struct message){ w.recv_type, w.msgid, w.msg.netfn, w.msg.cmd,
					     w.msg.data_len, w.addr_len, { 0 }, { 0 } };
	if (m->addr_len <= addr_room && m->addr_len <= sizeof m->from)
		memcpy(&m->from, (void *)addr, m->addr_len);
	if (m->data_len && m->data_len <= data_room && m->data_len <= sizeof m->data)
		memcpy(m->data, (void *)data, m->data_len);
	return rc;
}

static int receive_whole(int fd, struct message *m)
{
	struct room all = { .addr_len = ADDR_MAX, .data_len = IPMI_MAX_MSG_LENGTH, .small = compat };
	return receive(fd, &all, m);
}

// Longest wait for an answer, milliseconds: what a caller is promised.
#define ANSWER_MS 10000

static bool readable(int fd, int limit_ms)
{
	struct pollfd p = { fd, POLLIN, 0 };
	return poll(&p, 1, limit_ms) == 1 && p.revents & POLLIN;
}

#endif
