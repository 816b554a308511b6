/* A CUDA runtime, cuBLAS and NCCL whose devices compute nothing, for torch's CUDA build on a machine without a GPU.
 *
 * It is loaded before NVIDIA's libraries and answers in their place. Device memory is the host's, copies are real, kernels and
 * products are counted and not run. What torch asks for and is not here does nothing; build.py adds it.
 *
 *   NO_GPU_COUNT=1  NO_GPU_CAPABILITY=9.0  NO_GPU_MEMORY=80e9  NO_GPU_DRIVER=13000
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cuda.h>
#include <cuda_runtime_api.h>
/* Types of half precision need C++, and nothing here does. */
#define __CUDA_FP16_H__
#define __CUDA_BF16_H__
#include <cublasLt.h>
#include <cublas_v2.h>
#include <nccl.h>

/* What tests read: kernels launched, products of cuBLAS, waits for the device, copies to the host. */
_Atomic long no_gpu_launches, no_gpu_products, no_gpu_waits, no_gpu_copies_to_host;

static double setting(const char *name, double otherwise) {
  const char *text = getenv(name);
  return text ? atof(text) : otherwise;
}
static int major(void) { return (int)setting("NO_GPU_CAPABILITY", 9.0); }
static int minor(void) { return (int)(setting("NO_GPU_CAPABILITY", 9.0) * 10 + 0.5) % 10; }
static size_t memory(void) { return (size_t)setting("NO_GPU_MEMORY", 80e9); }

/* Devices. CUDA_VISIBLE_DEVICES counts up to the first entry that names none, as CUDA's programming guide says. */
static int devices(void) {
  int all = (int)setting("NO_GPU_COUNT", 1), seen = 0;
  const char *visible = getenv("CUDA_VISIBLE_DEVICES");
  if (!visible) return all;
  for (const char *entry = visible; *entry; entry += strcspn(entry, ",") + (entry[strcspn(entry, ",")] == ',')) {
    char *end;
    long number = strtol(entry, &end, 10);
    int named = !strncmp(entry, "GPU-", 4) || !strncmp(entry, "MIG-", 4);
    if (!named && (end == entry || number < 0 || number >= all)) break;
    seen++;
  }
  return seen;
}
static _Thread_local int current;

static int version(void) { return (int)setting("NO_GPU_DRIVER", CUDART_VERSION); }
cudaError_t cudaGetDeviceCount(int *count) {
  *count = version() < CUDART_VERSION ? 0 : devices();
  return version() < CUDART_VERSION ? cudaErrorInsufficientDriver : *count ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaGetDevice(int *device) { *device = current; return cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= devices()) return cudaErrorInvalidDevice;
  current = device;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *found) { *found = version(); return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { *version = CUDART_VERSION; return cudaSuccess; }
const char *cudaGetErrorString(cudaError_t error) { return error == cudaErrorMemoryAllocation ? "out of memory" : "an error"; }
const char *cudaGetErrorName(cudaError_t error) { return cudaGetErrorString(error); }
cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int device) { snprintf(text, size, "0000:%02x:00.0", device + 1); return cudaSuccess; }

/* Shared memory of a block that kernels may ask for, by the programming guide's table of technical specifications. */
static size_t shared_memory(void) {
  return major() == 9 || major() == 10 ? 227 << 10 : major() == 8 && minor() == 0 ? 163 << 10 : major() >= 8 ? 99 << 10 : 64 << 10;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *found, int device) {
  struct cudaDeviceProp card = {
      .totalGlobalMem = memory(), .major = major(), .minor = minor(), .multiProcessorCount = 100, .warpSize = 32,
      .maxThreadsPerBlock = 1024, .maxThreadsPerMultiProcessor = 2048, .maxBlocksPerMultiProcessor = 32,
      .sharedMemPerBlock = 48 << 10, .sharedMemPerBlockOptin = shared_memory(), .sharedMemPerMultiprocessor = shared_memory(),
      .regsPerBlock = 65536, .regsPerMultiprocessor = 65536, .l2CacheSize = 40 << 20, .maxThreadsDim = {1024, 1024, 64},
      .maxGridSize = {2147483647, 65535, 65535}, .unifiedAddressing = 1, .pciBusID = device + 1, .cooperativeLaunch = 1};
  snprintf(card.name, sizeof card.name, "no GPU, as of compute capability %d.%d", major(), minor());
  card.uuid.bytes[0] = (char)(device + 1);
  *found = card;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
  struct cudaDeviceProp card;
  cudaGetDeviceProperties(&card, device);
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = card.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = card.minor; break;
    case cudaDevAttrMultiProcessorCount: *value = card.multiProcessorCount; break;
    case cudaDevAttrMaxGridDimX: *value = card.maxGridSize[0]; break;
    case cudaDevAttrMaxGridDimY: case cudaDevAttrMaxGridDimZ: *value = card.maxGridSize[1]; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = card.maxThreadsPerBlock; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = card.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = (int)card.sharedMemPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = (int)shared_memory(); break;
    case cudaDevAttrMaxRegistersPerBlock: *value = card.regsPerBlock; break;
    case cudaDevAttrWarpSize: *value = card.warpSize; break;
    case cudaDevAttrL2CacheSize: *value = card.l2CacheSize; break;
    default: *value = 0;
  }
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) { *can = device != peer; return cudaSuccess; }
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return cudaSuccess; }

/* Memory: what is allocated, so that a card can be full, and host memory is told from device memory. */
struct block { char *start; size_t size; int device; /* -1: pinned memory of the host */ struct block *next; };
static struct block *blocks;
static size_t used[64];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static cudaError_t allocate(void **pointer, size_t size, int device) {
  cudaError_t result = cudaErrorMemoryAllocation;
  pthread_mutex_lock(&lock);
  if (device < 0 || used[device] + size <= memory()) {
    struct block *block = malloc(sizeof *block);
    *block = (struct block){aligned_alloc(512, (size + 511) / 512 * 512), size, device, blocks};
    memset(block->start, 0, size);
    if (device >= 0) used[device] += size;
    blocks = block;
    *pointer = block->start;
    result = cudaSuccess;
  }
  pthread_mutex_unlock(&lock);
  return result;
}
static cudaError_t release(void *pointer) {
  pthread_mutex_lock(&lock);
  for (struct block **place = &blocks; *place; place = &(*place)->next) {
    struct block *block = *place;
    if (block->start != pointer) continue;
    if (block->device >= 0) used[block->device] -= block->size;
    *place = block->next;
    free(block->start);
    free(block);
    break;
  }
  pthread_mutex_unlock(&lock);
  return cudaSuccess;
}
static int device_of(const void *pointer) { /* -1: pinned, -2: any other memory of the host */
  int device = -2;
  pthread_mutex_lock(&lock);
  for (struct block *block = blocks; block; block = block->next)
    if ((char *)pointer >= block->start && (char *)pointer < block->start + block->size) device = block->device;
  pthread_mutex_unlock(&lock);
  return device;
}
cudaError_t cudaMalloc(void **pointer, size_t size) { return allocate(pointer, size, current); }
cudaError_t cudaMallocAsync(void **pointer, size_t size, cudaStream_t stream) { return allocate(pointer, size, current); }
cudaError_t cudaHostAlloc(void **pointer, size_t size, unsigned flags) { return allocate(pointer, size, -1); }
cudaError_t cudaFree(void *pointer) { return release(pointer); }
cudaError_t cudaFreeAsync(void *pointer, cudaStream_t stream) { return release(pointer); }
cudaError_t cudaFreeHost(void *pointer) { return release(pointer); }
cudaError_t cudaMemGetInfo(size_t *left, size_t *all) { *all = memory(); *left = memory() - used[current]; return cudaSuccess; }
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *pointer) {
  int device = device_of(pointer);
  enum cudaMemoryType type = device >= 0 ? cudaMemoryTypeDevice : device == -1 ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
  *found = (struct cudaPointerAttributes){.type = type, .device = device < 0 ? 0 : device, .devicePointer = (void *)pointer, .hostPointer = device < 0 ? (void *)pointer : NULL};
  return cudaSuccess;
}

/* Segments that grow (expandable_segments): addresses are reserved, and pages come with the first touch. */
CUresult cuMemGetAllocationGranularity(size_t *size, const CUmemAllocationProp *prop, CUmemAllocationGranularity_flags option) { *size = 2 << 20; return CUDA_SUCCESS; }
CUresult cuMemAddressReserve(CUdeviceptr *pointer, size_t size, size_t alignment, CUdeviceptr near, unsigned long long flags) {
  void *start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  *pointer = (CUdeviceptr)start;
  return start == MAP_FAILED ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}
CUresult cuMemAddressFree(CUdeviceptr pointer, size_t size) { munmap((void *)pointer, size); return CUDA_SUCCESS; }
CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *prop, unsigned long long flags) {
  int full;
  pthread_mutex_lock(&lock);
  full = used[prop->location.id] + size > memory();
  if (!full) used[prop->location.id] += size;
  pthread_mutex_unlock(&lock);
  *handle = (CUmemGenericAllocationHandle)(size << 6 | prop->location.id); /* what it is, so that its release knows */
  return full ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}
CUresult cuMemRelease(CUmemGenericAllocationHandle handle) {
  pthread_mutex_lock(&lock);
  used[handle & 63] -= handle >> 6;
  pthread_mutex_unlock(&lock);
  return CUDA_SUCCESS;
}
CUresult cuMemUnmap(CUdeviceptr pointer, size_t size) { madvise((void *)pointer, size, MADV_DONTNEED); return CUDA_SUCCESS; }

/* Copies are real, in the order in which they are asked for: every stream is done at once. */
static cudaError_t copy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) {
  if (kind == cudaMemcpyDeviceToHost || (kind == cudaMemcpyDefault && device_of(from) >= 0 && device_of(to) < 0)) no_gpu_copies_to_host++;
  memmove(to, from, size);
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) { return copy(to, from, size, kind); }
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream) { return copy(to, from, size, kind); }
cudaError_t cudaMemcpyPeerAsync(void *to, int device, const void *from, int peer, size_t size, cudaStream_t stream) { return copy(to, from, size, cudaMemcpyDeviceToDevice); }
cudaError_t cudaMemcpy2DAsync(void *to, size_t pitch, const void *from, size_t own, size_t width, size_t height, enum cudaMemcpyKind kind, cudaStream_t stream) {
  for (size_t row = 0; row < height; row++) memmove((char *)to + row * pitch, (const char *)from + row * own, width);
  no_gpu_copies_to_host += kind == cudaMemcpyDeviceToHost;
  return cudaSuccess;
}
cudaError_t cudaMemset(void *start, int value, size_t size) { memset(start, value, size); return cudaSuccess; }
cudaError_t cudaMemsetAsync(void *start, int value, size_t size, cudaStream_t stream) { memset(start, value, size); return cudaSuccess; }

/* Streams and events are names without content. */
static void *name(void) { return calloc(1, 64); }
cudaError_t cudaStreamCreate(cudaStream_t *stream) { *stream = name(); return cudaSuccess; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) { *stream = name(); return cudaSuccess; }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) { *stream = name(); return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) { *status = cudaStreamCaptureStatusNone; return cudaSuccess; }
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id, cudaGraph_t *graph,
                                     const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges, size_t *count) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) { *mode = cudaStreamCaptureModeGlobal; return cudaSuccess; }
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority) { *priority = 0; return cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t *event) { *event = name(); return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) { *event = name(); return cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t event) { free(event); return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) { *milliseconds = 0; return cudaSuccess; }
cudaError_t cudaDeviceSynchronize(void) { no_gpu_waits++; return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { no_gpu_waits++; return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t event) { no_gpu_waits++; return cudaSuccess; }

/* Kernels. */
cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **given, size_t shared, cudaStream_t stream) { no_gpu_launches++; return cudaSuccess; }
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **given, size_t shared, cudaStream_t stream) { no_gpu_launches++; return cudaSuccess; }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel, void **given) { no_gpu_launches++; return cudaSuccess; }
CUresult cuLaunchKernel(CUfunction kernel, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e, unsigned f, unsigned shared, CUstream stream, void **given, void **more) { no_gpu_launches++; return CUDA_SUCCESS; }
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *found, const void *kernel) {
  int version = major() * 10 + minor();
  *found = (struct cudaFuncAttributes){.maxThreadsPerBlock = 1024, .numRegs = 32, .binaryVersion = version, .ptxVersion = version};
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *count, const void *kernel, int size, size_t shared, unsigned flags) { *count = 2; return cudaSuccess; }

/* The driver below the runtime, which torch looks up by name. */
static int nothing(void) { return 0; }
cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned version, unsigned long long flags, enum cudaDriverEntryPointQueryResult *status) {
  *function = dlsym(RTLD_DEFAULT, symbol);
  if (!*function) *function = (void *)nothing;
  if (status) *status = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
CUresult cuInit(unsigned flags) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *found) { *found = version(); return CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int *count) { *count = devices(); return CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *device, int number) { *device = number; return CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) { cudaDeviceGetAttribute(value, (enum cudaDeviceAttr)attribute, device); return CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) { *flags = 0; *active = device == current; return CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) { *context = (CUcontext)&blocks; return CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext *context) { *context = (CUcontext)&blocks; return CUDA_SUCCESS; }
CUresult cuCtxGetDevice(CUdevice *device) { *device = current; return CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult error, const char **text) { *text = "an error"; return CUDA_SUCCESS; }
CUresult cuGetErrorName(CUresult error, const char **text) { *text = "an error"; return CUDA_SUCCESS; }

/* cuBLAS. */
cublasStatus_t cublasCreate_v2(cublasHandle_t *handle) { *handle = name(); return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasGetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t *mode) { *mode = CUBLAS_POINTER_MODE_HOST; return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t *mode) { *mode = CUBLAS_DEFAULT_MATH; return CUBLAS_STATUS_SUCCESS; }
size_t cublasLtGetVersion(void) { return CUBLAS_VERSION; }
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *made, cublasComputeType_t type, cudaDataType_t scale) { *made = name(); return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *made, cudaDataType type, uint64_t rows, uint64_t columns, int64_t step) { *made = name(); return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *made) { *made = name(); return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t found[], int *count) {
  memset(found, 0, sizeof *found);
  *count = 1;
  return CUBLAS_STATUS_SUCCESS;
}

/* NCCL: each process hears itself alone, which is right for a world of one. */
static size_t bytes(ncclDataType_t type, size_t count) {
  static const int sizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
  return count * (type < sizeof sizes / sizeof *sizes ? sizes[type] : 1);
}
static ncclResult_t heard(void *to, const void *from, size_t size) { if (to != from) memmove(to, from, size); return ncclSuccess; }
ncclResult_t ncclGetVersion(int *version) { *version = NCCL_VERSION_CODE; return ncclSuccess; }
ncclResult_t ncclGetUniqueId(ncclUniqueId *id) { memset(id, 0, sizeof *id); return ncclSuccess; }
ncclResult_t ncclCommInitRank(ncclComm_t *made, int ranks, ncclUniqueId id, int rank) { *made = name(); return ncclSuccess; }
ncclResult_t ncclCommInitRankConfig(ncclComm_t *made, int ranks, ncclUniqueId id, int rank, ncclConfig_t *config) { *made = name(); return ncclSuccess; }
ncclResult_t ncclCommInitRankScalable(ncclComm_t *made, int ranks, int rank, int ids, ncclUniqueId *id, ncclConfig_t *config) { *made = name(); return ncclSuccess; }
ncclResult_t ncclCommSplit(ncclComm_t all, int color, int key, ncclComm_t *made, ncclConfig_t *config) { *made = name(); return ncclSuccess; }
ncclResult_t ncclCommGetAsyncError(ncclComm_t group, ncclResult_t *error) { *error = ncclSuccess; return ncclSuccess; }
ncclResult_t ncclCommCount(const ncclComm_t group, int *count) { *count = 1; return ncclSuccess; }
ncclResult_t ncclCommUserRank(const ncclComm_t group, int *rank) { *rank = 0; return ncclSuccess; }
const char *ncclGetErrorString(ncclResult_t error) { return "an error"; }
const char *ncclGetLastError(ncclComm_t group) { return ""; }
ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t group, cudaStream_t stream) { return heard(to, from, bytes(type, count)); }
ncclResult_t ncclReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op, int root, ncclComm_t group, cudaStream_t stream) { return heard(to, from, bytes(type, count)); }
ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t group, cudaStream_t stream) { return heard(to, from, bytes(type, count)); }
ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type, ncclComm_t group, cudaStream_t stream) { return heard(to, from, bytes(type, count)); }
ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root, ncclComm_t group, cudaStream_t stream) { return heard(to, from, bytes(type, count)); }
