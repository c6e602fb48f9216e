// Draws what PyTorch's CUDA generator draws, with cuRAND's own headers compiled for the host, and with the launch that PyTorch's
// calc_execution_policy chooses. make_random.py builds and runs it.
//
//   philox SEED THREADS (i|u|n COUNT)...
//
// THREADS is how many threads the GPU runs at a time, 0 for any number. Standard output takes 4 bytes a value.
#include <cuda_runtime_api.h>
#include <vector_types.h>

#define QUALIFIERS static inline
#include <curand_kernel.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

int main(int argc, char **argv) {
  const uint64_t seed = strtoull(argv[1], nullptr, 10);
  const uint64_t resident = strtoull(argv[2], nullptr, 10);
  uint64_t offset = 0;
  for (int argument = 3; argument + 1 < argc; argument += 2) {
    const char kind = argv[argument][0];
    const uint64_t count = strtoull(argv[argument + 1], nullptr, 10);
    uint64_t blocks = (count + 255) / 256;
    if (resident > 0) blocks = std::min(blocks, resident / 256);
    const uint64_t threads = blocks * 256;
    std::vector<uint32_t> values(count);
    for (uint64_t thread = 0; thread < threads; thread++) {
      curandStatePhilox4_32_10_t state;
      curand_init(seed, thread, offset, &state);
      for (uint64_t base = thread; base < count; base += 4 * threads) {
        uint32_t four[4];
        if (kind == 'n') {
          const float4 drawn = curand_normal4(&state);
          memcpy(four, &drawn, sizeof four);
        } else if (kind == 'u') {
          const float4 drawn = curand_uniform4(&state);
          memcpy(four, &drawn, sizeof four);
          for (uint32_t &bits : four)
            if (bits == 0x3f800000) bits = 0;  // uniform_kernel takes 1 for 0
        } else {
          const uint4 drawn = curand4(&state);
          memcpy(four, &drawn, sizeof four);
        }
        for (uint64_t lane = 0; lane < 4; lane++)
          if (base + lane * threads < count) values[base + lane * threads] = four[lane];
      }
    }
    if (count > 0) offset += ((count - 1) / (threads * 4) + 1) * 4;
    fwrite(values.data(), 4, count, stdout);
  }
  return 0;
}
