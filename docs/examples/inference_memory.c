#define _GNU_SOURCE
#include "inference_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct oscine {
	int fd;
	size_t size;
	void *memory;
	char error[512];
	char body[16 << 10];
	char wire[17 << 10]; /* a request, then its answer */
};

static int fail(struct oscine *o, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(o->error, sizeof o->error, format, args);
	va_end(args);
	return -1;
}

/* put appends to the body; a body that is full stays cut and is noticed by ask. */
static size_t put(struct oscine *o, size_t at, const char *format, ...)
{
	va_list args;
	if (at >= sizeof o->body)
		return at;
	va_start(args, format);
	int n = vsnprintf(o->body + at, sizeof o->body - at, format, args);
	va_end(args);
	return n < 0 ? sizeof o->body : at + (size_t)n;
}

/* ask sends the body, with a descriptor unless that is -1, and reads the answer's
 * body into wire. */
static int ask(struct oscine *o, const char *path, size_t length, int descriptor, char **answer)
{
	if (length >= sizeof o->body)
		return fail(o, "the request is too long");
	int n = snprintf(o->wire, sizeof o->wire, "POST %s HTTP/1.1\r\nHost: node\r\nContent-Length: %zu\r\n\r\n%.*s", path, length, (int)length, o->body);
	if (n < 0 || (size_t)n >= sizeof o->wire)
		return fail(o, "the request is too long");
	struct iovec part = {o->wire, (size_t)n};
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
	if (descriptor >= 0) {
		message.msg_control = control.room;
		message.msg_controllen = sizeof control.room;
		struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(rights), &descriptor, sizeof(int));
	}
	while (part.iov_len > 0) {
		ssize_t sent = sendmsg(o->fd, &message, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return fail(o, "send: %s", strerror(errno));
		part.iov_base = (char *)part.iov_base + sent;
		part.iov_len -= (size_t)sent;
		message.msg_control = NULL;
		message.msg_controllen = 0;
	}
	size_t have = 0, need = 0;
	char *body = NULL;
	do {
		if (have + 1 >= sizeof o->wire)
			return fail(o, "the answer is too long");
		ssize_t got = recv(o->fd, o->wire + have, sizeof o->wire - have - 1, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return fail(o, "receive: %s", got == 0 ? "the node closed the connection" : strerror(errno));
		have += (size_t)got;
		o->wire[have] = 0;
		if (body == NULL && (body = strstr(o->wire, "\r\n\r\n")) != NULL) {
			const char *field = strcasestr(o->wire, "\r\nContent-Length:");
			if (field == NULL || field > body)
				return fail(o, "the answer has no length");
			body += 4;
			need = (size_t)(body - o->wire) + strtoul(field + 17, NULL, 10);
		}
	} while (body == NULL || have < need);
	*answer = body;
	if (strncmp(o->wire, "HTTP/1.1 200", 12) != 0)
		return fail(o, "%s", body);
	return 0;
}

static size_t put_place(struct oscine *o, size_t at, const struct oscine_tensor *t)
{
	return put(o, at, "\"parameters\":{\"shared_memory_region\":\"memory\",\"shared_memory_offset\":%zu,\"shared_memory_byte_size\":%zu}}", t->offset, t->size);
}

struct oscine *oscine_open(const char *path, size_t size)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct oscine *o = calloc(1, sizeof *o);
	int memory = -1, error;
	char *answer;
	if (o == NULL)
		return NULL;
	o->size = size;
	o->memory = MAP_FAILED;
	o->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (o->fd < 0)
		goto failed;
	if (strlen(path) >= sizeof address.sun_path) {
		errno = ENAMETOOLONG;
		goto failed;
	}
	strcpy(address.sun_path, path);
	if (connect(o->fd, (struct sockaddr *)&address, sizeof address) != 0 ||
	    (memory = memfd_create("inference", MFD_CLOEXEC | MFD_ALLOW_SEALING)) < 0 ||
	    ftruncate(memory, (off_t)size) != 0 ||
	    fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0 ||
	    (o->memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0)) == MAP_FAILED)
		goto failed;
	errno = EPROTO;
	if (ask(o, "/v2/systemsharedmemory/region/memory/register", put(o, 0, "{\"key\":\"memfd\",\"offset\":0,\"byte_size\":%zu}", size), memory, &answer) != 0)
		goto failed;
	close(memory);
	return o;
failed:
	error = errno;
	if (memory >= 0)
		close(memory);
	oscine_close(o);
	errno = error;
	return NULL;
}

void *oscine_memory(struct oscine *o)
{
	return o->memory;
}

int oscine_infer(struct oscine *o, const char *model, const struct oscine_tensor *inputs, int n_inputs,
		 struct oscine_tensor *outputs, int n_outputs)
{
	char path[512], *answer;
	size_t at = put(o, 0, "{\"inputs\":[");
	for (int i = 0; i < n_inputs; i++) {
		at = put(o, at, "%s{\"name\":\"%s\",\"datatype\":\"%s\",\"shape\":[", i ? "," : "", inputs[i].name, inputs[i].datatype);
		for (int j = 0; j < inputs[i].rank && j < 8; j++)
			at = put(o, at, "%s%" PRId64, j ? "," : "", inputs[i].shape[j]);
		at = put_place(o, put(o, at, "],"), &inputs[i]);
	}
	at = put(o, at, "],\"outputs\":[");
	for (int i = 0; i < n_outputs; i++)
		at = put_place(o, put(o, at, "%s{\"name\":\"%s\",", i ? "," : "", outputs[i].name), &outputs[i]);
	at = put(o, at, "]}");
	if (snprintf(path, sizeof path, "/v2/models/%s/infer", model) >= (int)sizeof path)
		return fail(o, "the model's name is too long");
	if (ask(o, path, at, -1, &answer) != 0)
		return -1;
	for (int i = 0; i < n_outputs; i++) { /* they come in the order in which they were asked for */
		answer = strstr(answer, "\"shared_memory_byte_size\":");
		if (answer == NULL)
			return fail(o, "the answer lacks output %s", outputs[i].name);
		size_t size = strtoul(answer += 26, NULL, 10);
		if (size > outputs[i].size)
			return fail(o, "output %s has more bytes than it has room", outputs[i].name);
		outputs[i].size = size;
	}
	return 0;
}

const char *oscine_error(struct oscine *o)
{
	return o->error;
}

void oscine_close(struct oscine *o)
{
	if (o->memory != MAP_FAILED)
		munmap(o->memory, o->size);
	if (o->fd >= 0)
		close(o->fd);
	free(o);
}
