/* An ONNX Runtime of before 1.19, as far as a program notices that asks for a newer API. */
#include <stddef.h>
#include <stdint.h>

static const void *get_api(uint32_t version) {
    (void)version;
    return NULL;
}

static const char *get_version(void) { return "1.12.1"; }

typedef struct {
    const void *(*get_api)(uint32_t version);
    const char *(*get_version)(void);
} ApiBase;

const ApiBase *OrtGetApiBase(void);

const ApiBase *OrtGetApiBase(void) {
    static const ApiBase base = {get_api, get_version};
    return &base;
}
