// The kernels for any processor: four floats at a time, which every 64-bit machine has.
#include "kernels.h"

#define PIO_LANES 4
#define PIO_NAME "portable"
#define PIO_TABLE kPortable
#define PIO_NAMESPACE on_portable
#include "kernels_here.h"
