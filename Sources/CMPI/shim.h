#pragma once
#include <mpi.h>

// Handles that the standard's header defines by macros, which Swift does not see.
static inline int ld_mpi_rank(int *rank) { return MPI_Comm_rank(MPI_COMM_WORLD, rank); }
static inline int ld_mpi_size(int *size) { return MPI_Comm_size(MPI_COMM_WORLD, size); }
static inline int ld_mpi_sum_floats(float *values, int count) {
  return MPI_Allreduce(MPI_IN_PLACE, values, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}
static inline int ld_mpi_sum_doubles(double *values, int count) {
  return MPI_Allreduce(MPI_IN_PLACE, values, count, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
}
static inline int ld_mpi_abort(int status) { return MPI_Abort(MPI_COMM_WORLD, status); }
static inline int ld_mpi_init(void) {
  int given = 0;
  // One thread at a time makes calls, not always the same one.
  return MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &given) != MPI_SUCCESS || given < MPI_THREAD_SERIALIZED;
}
