// The project's kernels, compiled for the host: with FORMAT_ID those of one format of weights, without it all the
// others.
#include "device.h"

#define ENTRY(kernel) emulated::Entry<&kernel>::make(TEXT(kernel))
#define TEXT(kernel) AS_TEXT(kernel)
#define AS_TEXT(kernel) #kernel

namespace {

#include "base.cu"
#ifdef FORMAT_ID
#include "format.cu"
#include "product.cu"
#include "integer.cu"
const emulated::Kernel kernels[] = {
    ENTRY(NAME(lookup)),     ENTRY(NAME(product_1)), ENTRY(NAME(product_1_few)), ENTRY(NAME(product_4)), ENTRY(NAME(product_8)),
    ENTRY(NAME(gated_1)),
#if !IS_FLOAT
    ENTRY(NAME(rounded_1)),  ENTRY(NAME(rounded_4)), ENTRY(NAME(rounded_tensor)),
#endif
};
#else
#include "element.cu"
#include "attention.cu"
const emulated::Kernel kernels[] = {
    ENTRY(norm_rows),    ENTRY(round_numbers), ENTRY(rotate_heads), ENTRY(remember), ENTRY(gate_numbers),
    ENTRY(add_numbers),  ENTRY(copy_numbers),  ENTRY(argmax_rows),  ENTRY(attend),
};
#endif

emulated::Module module(kernels, sizeof(kernels) / sizeof(kernels[0]));

}  // namespace
