#include <webp/demux.h>
#include <webp/mux.h>
