/* NVML for driver.c's devices: how many there are and what they are called, whatever the driver's version is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3 };
static int count(void) { return getenv("NO_GPU_COUNT") ? atoi(getenv("NO_GPU_COUNT")) : 1; }

int nvmlInit(void) { return SUCCESS; }
int nvmlInit_v2(void) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *found) { *found = count(); return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(size_t)(index + 1); return SUCCESS; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **device) { *device = (void *)1; return SUCCESS; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
  snprintf(text, size, "GPU-%02zx000000-0000-0000-0000-000000000000", (size_t)device);
  return SUCCESS;
}
int nvmlDeviceGetComputeRunningProcesses(void *device, unsigned *found, void *processes) { *found = 0; return SUCCESS; }
int nvmlDeviceGetGpuFabricInfoV(void *device, void *info) { return SUCCESS; } /* the state that it was given: none */
int nvmlDeviceGetNvLinkRemoteDeviceType(void *device, unsigned link, void *type) { return NOT_SUPPORTED; }
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void *device, unsigned link, void *info) { return NOT_SUPPORTED; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) {
  *version = getenv("NO_GPU_DRIVER") ? atoi(getenv("NO_GPU_DRIVER")) : 13000;
  return SUCCESS;
}
