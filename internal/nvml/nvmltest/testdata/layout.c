/* Prints size and offsets of the structs that the package passes. */
#include <stddef.h>
#include <stdio.h>
#include NVML_H
#define S(t) printf(#t " %zu\n", sizeof(t))
#define F(t, f) printf(#t "." #f " %zu\n", offsetof(t, f))
int main(void)
{
	S(nvmlPciInfo_t); F(nvmlPciInfo_t, domain); F(nvmlPciInfo_t, device); F(nvmlPciInfo_t, pciSubSystemId); F(nvmlPciInfo_t, busId);
	S(nvmlMemory_t); F(nvmlMemory_t, used);
	S(nvmlMemory_v2_t); F(nvmlMemory_v2_t, total); F(nvmlMemory_v2_t, used);
	S(nvmlUtilization_t);
	S(nvmlFieldValue_t); F(nvmlFieldValue_t, valueType); F(nvmlFieldValue_t, nvmlReturn); F(nvmlFieldValue_t, value);
	S(nvmlGpuInstancePlacement_t);
	S(nvmlGpuInstanceProfileInfo_t); F(nvmlGpuInstanceProfileInfo_t, sliceCount); F(nvmlGpuInstanceProfileInfo_t, memorySizeMB);
	S(nvmlGpuInstanceInfo_t); F(nvmlGpuInstanceInfo_t, id); F(nvmlGpuInstanceInfo_t, placement);
	S(nvmlComputeInstanceProfileInfo_t); F(nvmlComputeInstanceProfileInfo_t, sliceCount);
	S(nvmlComputeInstanceInfo_t); F(nvmlComputeInstanceInfo_t, id);
	S(nvmlEventData_t); F(nvmlEventData_t, eventType); F(nvmlEventData_t, eventData); F(nvmlEventData_t, gpuInstanceId); F(nvmlEventData_t, computeInstanceId);
	return 0;
}
