/* Asks a model through memory shared with the node: the tensors are not sent.
 * See docs/inference.md. Compile inference_memory.c along; it needs only libc.
 *
 *   struct oscine *o = oscine_open("/run/oscine/inference.sock", 1 << 20);
 *   float *x = oscine_memory(o);                       (write the inputs)
 *   struct oscine_tensor in  = {"x", "FP32", {1, 64}, 2, 0, 256};
 *   struct oscine_tensor out = {.name = "y", .offset = 256, .size = 256};
 *   if (oscine_infer(o, "m", &in, 1, &out, 1) != 0)
 *           puts(oscine_error(o));
 */
#ifndef OSCINE_INFERENCE_MEMORY_H
#define OSCINE_INFERENCE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

struct oscine; /* a connection; one thread uses it at a time */

struct oscine_tensor {
	const char *name;
	const char *datatype; /* of the protocol, such as "FP32"; of outputs not read */
	int64_t shape[8];     /* of outputs not read */
	int rank;
	size_t offset; /* of the elements in the memory, in bytes */
	size_t size;   /* of an output: in, the room that it has; out, its bytes */
};

/* oscine_open connects and shares size bytes with the node. It returns NULL, with
 * errno set, where it cannot. */
struct oscine *oscine_open(const char *socket, size_t size);

/* oscine_memory is the shared memory. */
void *oscine_memory(struct oscine *o);

/* oscine_infer asks a model. It returns 0, or -1 with oscine_error saying why. */
int oscine_infer(struct oscine *o, const char *model, const struct oscine_tensor *inputs, int n_inputs,
		 struct oscine_tensor *outputs, int n_outputs);

/* oscine_error is why the last call failed, as the node says it. */
const char *oscine_error(struct oscine *o);

void oscine_close(struct oscine *o);

#endif
