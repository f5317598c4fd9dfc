/* A stand-in for NVIDIA's management library with two cards: one that tells everything, one that tells little. The cards
 * do nothing; the figures are constants that the test expects. */
#include <string.h>

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilisation;
typedef struct {
    char legacy[16];
    unsigned domain, bus, device, ids, subsystem_ids;
    char address[32];
} PciInfo;

static int started, limit = 300000;
static int cards[2] = {0, 1};

static int number(void *card) { return *(int *)card; }
static int put(char *to, unsigned length, const char *text) {
    if (strlen(text) + 1 > length) return 7;
    strcpy(to, text);
    return 0;
}

int nvmlInit_v2(void) { started = 1; return 0; }
int nvmlShutdown(void) { started = 0; return 0; }
int nvmlSystemGetDriverVersion(char *to, unsigned length) { return put(to, length, "575.51.03"); }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return started ? 0 : 1; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **card) {
    if (!started || index > 1) return 2;
    *card = &cards[index];
    return 0;
}
int nvmlDeviceGetUUID(void *card, char *to, unsigned length) {
    return put(to, length, number(card) ? "GPU-2" : "GPU-0d7e3a1c-1111-2222-3333-444455556666");
}
int nvmlDeviceGetName(void *card, char *to, unsigned length) {
    return put(to, length, number(card) ? "Card Two" : "NVIDIA GeForce RTX 4090");
}
int nvmlDeviceGetPciInfo_v3(void *card, PciInfo *info) {
    memset(info, 0, sizeof *info);
    info->bus = number(card) ? 0x41 : 0x01;
    return 0;
}
int nvmlDeviceGetMemoryInfo(void *card, Memory *memory) {
    memory->total = 24ull << 30;
    memory->used = number(card) ? 0 : 3ull << 30;
    memory->free = memory->total - memory->used;
    return 0;
}
int nvmlDeviceGetTemperature(void *card, int sensor, unsigned *celsius) {
    *celsius = 71;
    return number(card) || sensor ? 3 : 0;
}
int nvmlDeviceGetTemperatureThreshold(void *card, int kind, unsigned *celsius) {
    *celsius = kind == 1 ? 96 : 0;
    return number(card) ? 3 : 0;
}
int nvmlDeviceGetPowerUsage(void *card, unsigned *milliwatts) { *milliwatts = 287500; return number(card) ? 3 : 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *card, unsigned long long *millijoules) {
    *millijoules = 123456789;
    return number(card) ? 3 : 0;
}
int nvmlDeviceGetClockInfo(void *card, int kind, unsigned *megahertz) {
    *megahertz = kind == 1 ? 2520 : 0;
    return number(card) ? 3 : 0;
}
int nvmlDeviceGetUtilizationRates(void *card, Utilisation *rates) {
    rates->gpu = 93;
    rates->memory = 40;
    return number(card) ? 3 : 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *card, unsigned long long *reasons) {
    *reasons = 0x4 | 0x20;
    return number(card) ? 3 : 0;
}
int nvmlDeviceGetPowerManagementLimit(void *card, unsigned *milliwatts) {
    *milliwatts = limit;
    return number(card) ? 3 : 0;
}
int nvmlDeviceGetPowerManagementLimitConstraints(void *card, unsigned *least, unsigned *most) {
    *least = 100000;
    *most = 450000;
    return number(card) ? 3 : 0;
}
int nvmlDeviceSetPowerManagementLimit(void *card, unsigned milliwatts) {
    if (number(card) || milliwatts < 100000 || milliwatts > 450000) return 2;
    limit = milliwatts;
    return 0;
}
