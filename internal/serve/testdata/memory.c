#include "inference_memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

int main(int argc, char **argv)
{
	struct oscine *o = argc == 2 ? oscine_open(argv[1], 4096) : NULL;
	if (o == NULL) {
		perror("oscine_open");
		return 1;
	}
	float *memory = oscine_memory(o);
	for (int round = 0; round < 3; round++) {
		struct oscine_tensor in = {"x", "FP32", {2, 4}, 2, 0, 32};
		struct oscine_tensor out[2] = {{.name = "y", .offset = 1024, .size = 1024}, {.name = "batch", .offset = 2048, .size = 64}};
		for (int i = 0; i < 8; i++)
			memory[i] = (float)(i + round);
		if (oscine_infer(o, "m", &in, 1, out, 2) != 0) {
			puts(oscine_error(o));
			return 1;
		}
		for (int i = 0; i < 8; i++)
			if (memory[256 + i] != 2 * memory[i] || out[0].size != 32 || out[1].size != 8) {
				printf("element %d is %g, of %zu and %zu bytes\n", i, memory[256 + i], out[0].size, out[1].size);
				return 1;
			}
	}
	struct oscine_tensor in = {"x", "FP32", {1, 4}, 2, 4090, 16}, out = {.name = "y"};
	if (oscine_infer(o, "m", &in, 1, &out, 1) == 0 || strstr(oscine_error(o), "has 4096 bytes") == NULL) {
		printf("got %s\n", oscine_error(o));
		return 1;
	}
	oscine_close(o);
	char path[200] = {0};
	memset(path, 'x', sizeof path - 1);
	if (oscine_open(path, 4096) != NULL || errno != ENAMETOOLONG) {
		perror("a long path");
		return 1;
	}
	struct rlimit none = {0, 0};
	if (setrlimit(RLIMIT_NOFILE, &none) != 0 || oscine_open(argv[1], 4096) != NULL || errno != EMFILE) {
		perror("no descriptor");
		return 1;
	}
	puts("answers agree");
	return 0;
}
