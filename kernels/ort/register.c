/* register.c - what the library exports: it gives the runtime its operators.
 *
 * A process may hold more than one runtime, each with a table of functions of its own. Operators and their domain are made
 * once for each, must outlive all its sessions, and so lie in static memory. */
#include "cpu.h"
#include "dispatch.h"
#include "edgebit_ort.h"
#include "hwcap.h"
#include "kernel.h"
#include "node.h"

enum { MOST_RUNTIMES = 16 };

typedef struct runtime {
    const OrtApi *api;
    OrtCustomOpDomain *domain; /* NULL: not made yet */
    eb_operator operators[EB_OPERATORS];
} runtime;

static runtime runtimes[MOST_RUNTIMES];
static eb_ukernels kernels;
static uint8_t is_locked;

static void lock(void) {
    while (__atomic_test_and_set(&is_locked, __ATOMIC_ACQUIRE))
        ;
}

static void unlock(void) { __atomic_clear(&is_locked, __ATOMIC_RELEASE); }

static eb_isa isa(void) {
    const eb_hwcap cpu = eb_hwcap_read();
    const eb_host host = {.size = sizeof host, .hwcap = cpu.hwcap, .hwcap2 = cpu.hwcap2};
    eb_isa level = {0};
    eb_isa_choose(&host, &level, NULL); /* fails only for a level that was asked for */
    return level;
}

static runtime *runtime_of(const OrtApi *api) {
    for (int i = 0; i < MOST_RUNTIMES; i++)
        if (!runtimes[i].api || runtimes[i].api == api)
            return &runtimes[i];
    return NULL;
}

/* The runtime's domain, made where this is its first registration. */
static OrtStatus *domain_of(const OrtApi *api, OrtCustomOpDomain **out) {
    runtime *of = runtime_of(api);
    if (!of)
        return EB_ORT(api, CreateStatus)(EB_ORT_FAIL, "edgebit: this process holds more ONNX Runtimes than 16");
    if (!of->domain) {
        OrtCustomOpDomain *domain;
        if (!kernels.gemv_t2_i8)
            kernels = eb_dispatch(isa().features);
        eb_operators_fill(of->operators, api, &kernels);
        EB_TRY(EB_ORT(api, CreateCustomOpDomain)("ai.edgebit", &domain));
        for (int i = 0; i < EB_OPERATORS; i++)
            EB_TRY(EB_ORT(api, CustomOpDomain_Add)(domain, &of->operators[i].abi));
        of->api = api;
        of->domain = domain;
    }
    *out = of->domain;
    return NULL;
}

static OrtStatus *too_old(const OrtApiBase *base) {
    const OrtApi *first = base->GetApi(1);
    if (!first)
        return NULL; /* no runtime is that old: there is nothing that a status could be made with */
    eb_error text;
    eb_fail(&text,
            "libedgebit_ort %s needs ONNX Runtime 1.%d or later, and this is %s: pip install --upgrade onnxruntime",
            eb_version(), EB_ORT_API, base->GetVersionString());
    return EB_ORT(first, CreateStatus)(EB_ORT_NOT_IMPLEMENTED, text.text);
}

EB_API OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    const OrtApi *api = base->GetApi(EB_ORT_API);
    if (!api)
        return too_old(base);
    OrtCustomOpDomain *domain = NULL;
    lock();
    OrtStatus *failed = domain_of(api, &domain);
    unlock();
    return failed ? failed : EB_ORT(api, AddCustomOpDomain)(options, domain);
}

EB_API uint64_t edgebit_ort_kernels(void) { return eb_kernels_made(); }

EB_API const char *edgebit_ort_version(void) { return eb_version(); }

EB_API const char *edgebit_ort_isa(void) { return isa().name; }
