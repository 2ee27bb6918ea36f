/* A stand-in for NVML, for tests where there is no GPU. It has the functions of
 * nvml.h that the package calls and answers with what NVIDIA's documents list
 * of two H100 80GB HBM3 behind NVSwitches; nothing in it was read from a GPU.
 * What is changed (MIG, compute modes) is kept in a file, so that several
 * processes see one machine.
 *
 *   STANDIN_STATE  the file; required
 *   STANDIN_CAPS   where it shows the MIG capabilities, as the kernel driver does
 *   STANDIN_FAIL   function=code,... that fail with that nvmlReturn_t
 *   STANDIN_EVENTS a file of lines "GPU type data", one told each time
 *   STANDIN_HIDDEN NVSwitches have no PCI address, as in a virtual machine
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include NVML_H

#define GPUS 2
#define SLOTS 8

struct compute { int used, id, profile; };
struct part { int used, id, profile, start, gpu; struct compute compute; };
struct gpu { int mig, mode, nextId; struct part parts[SLOTS]; };
struct state { struct gpu gpus[GPUS]; };

static struct state *state;
static FILE *events;

static int failing(const char *function)
{
	const char *list = getenv("STANDIN_FAIL");
	size_t n = strlen(function);
	for (const char *p = list ? strstr(list, function) : NULL; p; p = strstr(p + 1, function))
		if ((p == list || p[-1] == ',') && p[n] == '=')
			return atoi(p + n + 1);
	return 0;
}
#define ENTER do { int failed = failing(__func__); if (failed) return failed; if (!state) return 1; } while (0)

nvmlReturn_t nvmlInit_v2(void)
{
	int failed = failing(__func__), fd;
	if (failed)
		return failed;
	fd = open(getenv("STANDIN_STATE"), O_RDWR | O_CREAT, 0600);
	if (fd < 0 || ftruncate(fd, sizeof *state))
		return 9;
	state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return state == MAP_FAILED ? 999 : 0;
}
nvmlReturn_t nvmlShutdown(void) { return failing(__func__); }

static int put(char *to, unsigned int length, const char *text)
{
	if (strlen(text) >= length)
		return 7;
	strcpy(to, text);
	return 0;
}
static int gpu(nvmlDevice_t d) { return (int)((struct gpu *)d - state->gpus); }

nvmlReturn_t nvmlSystemGetDriverVersion(char *v, unsigned int n) { ENTER; return put(v, n, "550.54.15"); }
nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *id, nvmlDevice_t *d)
{
	unsigned int domain, b, dev, f;
	ENTER;
	if (sscanf(id, "%x:%x:%x.%x", &domain, &b, &dev, &f) != 4 || domain || dev || f || b < 0x13 || b >= 0x13 + GPUS)
		return 6;
	*d = (nvmlDevice_t)&state->gpus[b - 0x13];
	return 0;
}
static void pci(nvmlPciInfo_t *p, unsigned int b, unsigned int dev)
{
	memset(p, 0, sizeof *p);
	p->bus = b;
	p->device = dev;
	snprintf(p->busIdLegacy, sizeof p->busIdLegacy, "0000:%02X:%02X.0", b, dev);
	snprintf(p->busId, sizeof p->busId, "00000000:%02X:%02X.0", b, dev);
}
nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t d, char *s, unsigned int n) { ENTER; (void)d; return put(s, n, "NVIDIA H100 80GB HBM3"); }
nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t d, char *s, unsigned int n) { ENTER; return put(s, n, gpu(d) ? "GPU-secret-1" : "GPU-secret-0"); }
nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t d, unsigned int *m) { ENTER; *m = gpu(d); return 0; }
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t d, nvmlMemory_t *m) { ENTER; (void)d; m->total = 85520809984ULL; m->used = 1681915904ULL; m->free = m->total - m->used; return 0; }
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t d, nvmlMemory_v2_t *m)
{
	ENTER;
	(void)d;
	if (m->version != (sizeof *m | 2 << 24))
		return 25;
	m->total = 85520809984ULL;
	m->reserved = 608174080ULL;
	m->used = 1073741824ULL;
	m->free = m->total - m->used - m->reserved;
	return 0;
}
nvmlReturn_t nvmlDeviceGetVbiosVersion(nvmlDevice_t d, char *s, unsigned int n) { ENTER; (void)d; return put(s, n, "96.00.74.00.01"); }
nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t d, nvmlDeviceArchitecture_t *a) { ENTER; (void)d; *a = 9; return 0; }
nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t d, int *major, int *minor) { ENTER; (void)d; *major = 9; *minor = 0; return 0; }
nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t d, nvmlEnableState_t *now, nvmlEnableState_t *pending) { ENTER; (void)d; *now = *pending = 1; return 0; }
nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t d, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter, unsigned long long *n)
{
	ENTER;
	*n = gpu(d) == 1 && type == 1 && counter == 0 ? 2 : 0;
	return 0;
}
nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t d, unsigned int *c, unsigned int *u, unsigned int *pending, unsigned int *failure)
{
	ENTER;
	if (((struct gpu *)d)->mig)
		return 3;
	*c = 0;
	*u = *pending = gpu(d) == 1;
	*failure = 0;
	return 0;
}
nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t d, nvmlEnableState_t *s) { ENTER; (void)d; (void)s; return 3; }
nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t d, unsigned long long *r) { ENTER; *r = gpu(d) == 1 ? 0x44 : 0x4; return 0; }
nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t d, nvmlUtilization_t *u) { ENTER; if (((struct gpu *)d)->mig) return 3; u->gpu = 37; u->memory = 12; return 0; }
nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t d, nvmlTemperatureSensors_t s, unsigned int *t) { ENTER; (void)d; if (s) return 2; *t = 41; return 0; }
nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t d, unsigned int *p) { ENTER; (void)d; *p = 312500; return 0; }

static const int toSwitch[18] = { 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3 };
nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t d, unsigned int l, nvmlEnableState_t *s) { ENTER; (void)d; if (l >= 18) return 2; *s = 1; return 0; }
nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t d, unsigned int l, unsigned int *v) { ENTER; (void)d; (void)l; *v = 6; return 0; }
nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t d, unsigned int l, nvmlIntNvLinkDeviceType_t *t) { ENTER; (void)d; (void)l; *t = 2; return 0; }
nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t d, unsigned int l, nvmlPciInfo_t *p)
{
	ENTER;
	(void)d;
	pci(p, getenv("STANDIN_HIDDEN") ? 0xff : 0xf0, toSwitch[l]);
	return 0;
}
nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t d, int n, nvmlFieldValue_t *v)
{
	ENTER;
	(void)d;
	for (int i = 0; i < n; i++) {
		v[i].nvmlReturn = v[i].fieldId == 164 && v[i].scopeId < 18 ? 0 : 3;
		v[i].valueType = 1;
		v[i].value.uiVal = 26562;
	}
	return 0;
}
nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t a, nvmlDevice_t b, nvmlGpuTopologyLevel_t *l) { ENTER; *l = a == b ? 0 : 50; return 0; }
nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t a, nvmlDevice_t b, nvmlGpuP2PCapsIndex_t c, nvmlGpuP2PStatus_t *s) { ENTER; (void)a; (void)b; (void)c; *s = 0; return 0; }
nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t d, nvmlComputeMode_t *m) { ENTER; *m = ((struct gpu *)d)->mode; return 0; }
nvmlReturn_t nvmlDeviceSetComputeMode(nvmlDevice_t d, nvmlComputeMode_t m) { ENTER; ((struct gpu *)d)->mode = m; return 0; }

/* MIG: profiles and places of an H100 80GB, as nvidia-smi mig -lgip and -lgipp list them. */
static const struct profile { unsigned int number, id, slices, count, sms, size, mb; unsigned int starts[8]; int places; } profiles[] = {
	{ 0x0, 19, 1, 7, 16, 1, 9984, { 0, 1, 2, 3, 4, 5, 6 }, 7 },
	{ 0x1, 14, 2, 3, 32, 2, 20096, { 0, 2, 4 }, 3 },
	{ 0x2, 9, 3, 2, 60, 4, 40448, { 0, 4 }, 2 },
	{ 0x3, 5, 4, 1, 64, 4, 40448, { 0 }, 1 },
	{ 0x4, 0, 7, 1, 132, 8, 81152, { 0 }, 1 },
	{ 0x7, 20, 1, 1, 16, 1, 9984, { 0, 1, 2, 3, 4, 5, 6 }, 7 },
	{ 0x9, 15, 1, 4, 26, 2, 20096, { 0, 2, 4, 6 }, 4 },
};
#define PROFILES (int)(sizeof profiles / sizeof *profiles)
static const unsigned int computeSlices[] = { 1, 2, 3, 4, 7 };

static const struct profile *byId(unsigned int id)
{
	for (int i = 0; i < PROFILES; i++)
		if (profiles[i].id == id)
			return &profiles[i];
	return NULL;
}
static void access_file(const char *format, int minor, int gi, int ci, int node)
{
	char path[4096], file[4200];
	FILE *f;
	snprintf(path, sizeof path, format, getenv("STANDIN_CAPS"), minor, gi, ci);
	for (char *p = path + 1; *p; p++)
		if (*p == '/') {
			*p = 0;
			mkdir(path, 0755);
			*p = '/';
		}
	mkdir(path, 0755);
	snprintf(file, sizeof file, "%s/access", path);
	if ((f = fopen(file, "w"))) {
		fprintf(f, "DeviceFileMinor: %d\nDeviceFileMode: 292\nDeviceFileModify: 1\n", node);
		fclose(f);
	}
}
static int gone(const char *format, int minor, int gi, int ci)
{
	char path[4096], file[4200];
	snprintf(path, sizeof path, format, getenv("STANDIN_CAPS"), minor, gi, ci);
	snprintf(file, sizeof file, "%s/access", path);
	return unlink(file) | rmdir(path);
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t d, unsigned int *now, unsigned int *pending) { ENTER; *now = *pending = ((struct gpu *)d)->mig; return 0; }
nvmlReturn_t nvmlDeviceSetMigMode(nvmlDevice_t d, unsigned int mode, nvmlReturn_t *activation)
{
	struct gpu *g = (struct gpu *)d;
	ENTER;
	*activation = failing("activation");
	if (*activation)
		return 0;
	for (int i = 0; !mode && i < SLOTS; i++)
		if (g->parts[i].used)
			return 19;
	g->mig = mode;
	return 0;
}
nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfo(nvmlDevice_t d, unsigned int n, nvmlGpuInstanceProfileInfo_t *info)
{
	ENTER;
	(void)d;
	for (int i = 0; i < PROFILES; i++)
		if (profiles[i].number == n) {
			memset(info, 0, sizeof *info);
			info->id = profiles[i].id;
			info->sliceCount = profiles[i].slices;
			info->instanceCount = profiles[i].count;
			info->multiprocessorCount = profiles[i].sms;
			info->memorySizeMB = profiles[i].mb;
			return 0;
		}
	return 3;
}
nvmlReturn_t nvmlDeviceGetGpuInstancePossiblePlacements_v2(nvmlDevice_t d, unsigned int id, nvmlGpuInstancePlacement_t *at, unsigned int *count)
{
	const struct profile *p = byId(id);
	ENTER;
	(void)d;
	if (!p)
		return 2;
	*count = p->places;
	for (int i = 0; i < p->places; i++) {
		at[i].start = p->starts[i];
		at[i].size = p->size;
	}
	return 0;
}
nvmlReturn_t nvmlDeviceGetGpuInstances(nvmlDevice_t d, unsigned int id, nvmlGpuInstance_t *all, unsigned int *count)
{
	struct gpu *g = (struct gpu *)d;
	ENTER;
	if (!g->mig)
		return 3;
	*count = 0;
	for (int i = 0; i < SLOTS; i++)
		if (g->parts[i].used && profiles[g->parts[i].profile].id == id)
			all[(*count)++] = (nvmlGpuInstance_t)&g->parts[i];
	return 0;
}
nvmlReturn_t nvmlDeviceCreateGpuInstanceWithPlacement(nvmlDevice_t d, unsigned int id, const nvmlGpuInstancePlacement_t *at, nvmlGpuInstance_t *made)
{
	struct gpu *g = (struct gpu *)d;
	const struct profile *p = byId(id);
	struct part *room = NULL;
	int allowed = 0;
	ENTER;
	if (!g->mig)
		return 3;
	for (int i = 0; p && i < p->places; i++)
		allowed |= p->starts[i] == at->start && p->size == at->size;
	if (!allowed)
		return 2;
	for (int i = 0; i < SLOTS; i++) {
		struct part *o = &g->parts[i];
		if (!o->used)
			room = room ? room : o;
		else if (at->start < o->start + profiles[o->profile].size && (unsigned)o->start < at->start + at->size)
			return 23;
	}
	if (!room)
		return 23;
	*room = (struct part){ .used = 1, .id = ++g->nextId, .profile = (int)(p - profiles), .start = (int)at->start, .gpu = gpu(d) };
	access_file("%s/gpu%d/mig/gi%d", gpu(d), room->id, 0, 100 * room->id);
	*made = (nvmlGpuInstance_t)room;
	return 0;
}
nvmlReturn_t nvmlGpuInstanceGetInfo(nvmlGpuInstance_t gi, nvmlGpuInstanceInfo_t *info)
{
	struct part *p = (struct part *)gi;
	ENTER;
	info->device = (nvmlDevice_t)&state->gpus[p->gpu];
	info->id = p->id;
	info->profileId = profiles[p->profile].id;
	info->placement.start = p->start;
	info->placement.size = profiles[p->profile].size;
	return 0;
}
nvmlReturn_t nvmlGpuInstanceDestroy(nvmlGpuInstance_t gi)
{
	struct part *p = (struct part *)gi;
	ENTER;
	if (p->compute.used)
		return 19;
	gone("%s/gpu%d/mig/gi%d", p->gpu, p->id, 0);
	p->used = 0;
	return 0;
}
nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfo(nvmlGpuInstance_t gi, unsigned int n, unsigned int engines, nvmlComputeInstanceProfileInfo_t *info)
{
	struct part *p = (struct part *)gi;
	ENTER;
	if (engines || n >= sizeof computeSlices / sizeof *computeSlices || computeSlices[n] > profiles[p->profile].slices)
		return 3;
	memset(info, 0, sizeof *info);
	info->id = n;
	info->sliceCount = computeSlices[n];
	return 0;
}
nvmlReturn_t nvmlGpuInstanceGetComputeInstances(nvmlGpuInstance_t gi, unsigned int id, nvmlComputeInstance_t *all, unsigned int *count)
{
	struct part *p = (struct part *)gi;
	ENTER;
	*count = 0;
	if (p->compute.used && (unsigned)p->compute.profile == id)
		all[(*count)++] = (nvmlComputeInstance_t)p;
	return 0;
}
nvmlReturn_t nvmlGpuInstanceCreateComputeInstance(nvmlGpuInstance_t gi, unsigned int id, nvmlComputeInstance_t *made)
{
	struct part *p = (struct part *)gi;
	ENTER;
	if (p->compute.used)
		return 23;
	p->compute = (struct compute){ 1, 0, (int)id };
	access_file("%s/gpu%d/mig/gi%d/ci%d", p->gpu, p->id, 0, 100 * p->id + 1);
	*made = (nvmlComputeInstance_t)p;
	return 0;
}
nvmlReturn_t nvmlComputeInstanceGetInfo_v2(nvmlComputeInstance_t ci, nvmlComputeInstanceInfo_t *info)
{
	struct part *p = (struct part *)ci;
	ENTER;
	memset(info, 0, sizeof *info);
	info->gpuInstance = (nvmlGpuInstance_t)p;
	info->id = p->compute.id;
	info->profileId = p->compute.profile;
	return 0;
}
nvmlReturn_t nvmlComputeInstanceDestroy(nvmlComputeInstance_t ci)
{
	struct part *p = (struct part *)ci;
	ENTER;
	gone("%s/gpu%d/mig/gi%d/ci%d", p->gpu, p->id, p->compute.id);
	p->compute.used = 0;
	return 0;
}

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *s)
{
	ENTER;
	if (getenv("STANDIN_EVENTS"))
		events = fopen(getenv("STANDIN_EVENTS"), "r");
	*s = (nvmlEventSet_t)&events;
	return 0;
}
nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t d, unsigned long long *t) { ENTER; (void)d; *t = 0x1f; return 0; }
nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t d, unsigned long long t, nvmlEventSet_t s) { ENTER; (void)d; (void)s; return t & ~0x1fULL ? 3 : 0; }
nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t s, nvmlEventData_t *e, unsigned int ms)
{
	unsigned int n;
	ENTER;
	(void)s;
	memset(e, 0, sizeof *e);
	e->gpuInstanceId = e->computeInstanceId = 0xffffffff;
	if (events && fscanf(events, "%u %llx %llu", &n, &e->eventType, &e->eventData) == 3 && n < GPUS) {
		e->device = (nvmlDevice_t)&state->gpus[n];
		return 0;
	}
	usleep(ms * 100);
	return 10;
}
nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t s) { ENTER; (void)s; if (events) fclose(events); return 0; }
