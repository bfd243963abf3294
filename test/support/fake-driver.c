/* Stands in for libcuda.so.1 and libnvidia-ml.so.1: what they say comes from the environment.
   FAKE_CUDA: the version; FAKE_INIT: cuInit's error; FAKE_GPUS: compute capabilities, "90 75"; FAKE_FREE: bytes. Making a context ends the process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int number(const char *name, int otherwise) { const char *text = getenv(name); return text ? atoi(text) : otherwise; }
static int capability(int device) {
  const char *at = getenv("FAKE_GPUS") ? getenv("FAKE_GPUS") : "";
  for (; *at; at += 3, --device) {
    if (device == 0) return (at[0] - '0') * 10 + at[1] - '0';
    if (!at[2]) break;
  }
  return -1;
}

int cuDriverGetVersion(int *version) { *version = number("FAKE_CUDA", 13000); return 0; }
int cuInit(unsigned flags) { return number("FAKE_INIT", 0); }
int cuDeviceGetCount(int *count) { *count = 0; while (capability(*count) >= 0) ++*count; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int bytes, int device) { snprintf(name, bytes, "Fake GPU %d", device); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? capability(device) / 10 : capability(device) % 10; return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)24 << 30; return 0; }
int cuDeviceGetPCIBusId(char *id, int bytes, int device) { snprintf(id, bytes, "0000:0%d:00.0", device + 1); return 0; }
int cuCtxCreate_v2(void **context, unsigned flags, int device) { abort(); }
int cuDevicePrimaryCtxRetain(void **context, int device) { abort(); }

int nvmlInit_v2(void) { return getenv("FAKE_FREE") ? 0 : 9; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **device) { *device = (void *)1; return strncmp(id, "0000:0", 6) ? 2 : 0; }
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *memory) {
  memory[0] = 24ull << 30;
  memory[1] = strtoull(getenv("FAKE_FREE"), 0, 10);
  memory[2] = memory[0] - memory[1];
  return 0;
}
