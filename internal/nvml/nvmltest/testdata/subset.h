/* The part of NVML's interface that the stand-in library has. Where a test
 * finds NVIDIA's own nvml.h it compiles the library against that instead, so
 * that every type and signature here is compared with it. */
typedef int nvmlReturn_t;
typedef struct nvmlDevice_st *nvmlDevice_t;
typedef struct nvmlGpuInstance_st *nvmlGpuInstance_t;
typedef struct nvmlComputeInstance_st *nvmlComputeInstance_t;
typedef struct nvmlEventSet_st *nvmlEventSet_t;
typedef unsigned int nvmlDeviceArchitecture_t;
typedef enum { enableStateZero } nvmlEnableState_t;
typedef enum { memoryErrorTypeZero } nvmlMemoryErrorType_t;
typedef enum { eccCounterTypeZero } nvmlEccCounterType_t;
typedef enum { temperatureSensorsZero } nvmlTemperatureSensors_t;
typedef enum { topologyLevelZero } nvmlGpuTopologyLevel_t;
typedef enum { capsIndexZero } nvmlGpuP2PCapsIndex_t;
typedef enum { p2pStatusZero } nvmlGpuP2PStatus_t;
typedef enum { computeModeZero } nvmlComputeMode_t;
typedef enum { remoteTypeZero } nvmlIntNvLinkDeviceType_t;
typedef enum { valueTypeZero } nvmlValueType_t;
typedef struct {
	char busIdLegacy[16];
	unsigned int domain, bus, device, pciDeviceId, pciSubSystemId;
	char busId[32];
} nvmlPciInfo_t;
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } nvmlMemory_v2_t;
typedef struct { unsigned int gpu, memory; } nvmlUtilization_t;
typedef union { double dVal; unsigned int uiVal; unsigned long long ullVal; } nvmlValue_t;
typedef struct {
	unsigned int fieldId, scopeId;
	long long timestamp, latencyUsec;
	nvmlValueType_t valueType;
	nvmlReturn_t nvmlReturn;
	nvmlValue_t value;
} nvmlFieldValue_t;
typedef struct { unsigned int start, size; } nvmlGpuInstancePlacement_t;
typedef struct { unsigned int start, size; } nvmlComputeInstancePlacement_t;
typedef struct {
	unsigned int id, isP2pSupported, sliceCount, instanceCount, multiprocessorCount, copyEngineCount, decoderCount, encoderCount, jpegCount, ofaCount;
	unsigned long long memorySizeMB;
} nvmlGpuInstanceProfileInfo_t;
typedef struct {
	nvmlDevice_t device;
	unsigned int id, profileId;
	nvmlGpuInstancePlacement_t placement;
} nvmlGpuInstanceInfo_t;
typedef struct {
	unsigned int id, sliceCount, instanceCount, multiprocessorCount, sharedCopyEngineCount, sharedDecoderCount, sharedEncoderCount, sharedJpegCount, sharedOfaCount;
} nvmlComputeInstanceProfileInfo_t;
typedef struct {
	nvmlDevice_t device;
	nvmlGpuInstance_t gpuInstance;
	unsigned int id, profileId;
	nvmlComputeInstancePlacement_t placement;
} nvmlComputeInstanceInfo_t;
typedef struct {
	nvmlDevice_t device;
	unsigned long long eventType, eventData;
	unsigned int gpuInstanceId, computeInstanceId;
} nvmlEventData_t;
