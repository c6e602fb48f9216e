#if MPI
  import CLatentDiffusionMPI
#endif
import Foundation
import LatentDiffusionTraining
import Tensor

/// Averages gradients over the processes that `mpirun` has started (MPI's `Allreduce`).
///
/// It is there where the package is built with the trait `MPI`, which needs Open MPI or another implementation; without the trait, there is one process.
public struct MPIExchange: GradientExchange {
  /// Which of the processes this is, and how many there are.
  public let share: BatchShare

  /// Joins the processes that were started together. Nil where there is one.
  /// - Throws: `MPIError` where MPI cannot be used, and where there are several processes but the package was built without MPI.
  public init?() throws(MPIError) {
    #if MPI
      guard ld_mpi_init() == 0 else { throw .unusable }
      var (rank, size) = (CInt(0), CInt(1))
      guard ld_mpi_rank(&rank) == 0, ld_mpi_size(&size) == 0 else { throw .unusable }
      guard size > 1 else { return nil }
      share = BatchShare(index: Int(rank), count: Int(size))
    #else
      // What Open MPI, MPICH and Slurm tell the processes that they start.
      let sizes = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"].compactMap { ProcessInfo.processInfo.environment[$0] }
      guard !sizes.contains(where: { (Int($0) ?? 1) > 1 }) else { throw .notBuilt }
      return nil
    #endif
  }

  public func average(_ loss: inout Double, _ gradients: inout [Tensor]) throws {
    #if MPI
      guard ld_mpi_sum_doubles(&loss, 1) == 0 else { throw MPIError.lost }
      loss /= Double(share.count)
      for index in gradients.indices {
        var values = gradients[index].elements
        // MPI counts with 32 bits.
        for start in stride(from: 0, to: values.count, by: 1 << 28) {
          let count = min(1 << 28, values.count - start)
          let status = values.withUnsafeMutableBufferPointer { buffer in
            buffer.baseAddress.map { ld_mpi_sum_floats($0 + start, CInt(count)) } ?? 0
          }
          guard status == 0 else { throw MPIError.lost }
        }
        let factor = 1 / Float(share.count)
        gradients[index] = Tensor(values.map { $0 * factor }, shape: gradients[index].shape)
      }
    #endif
  }

  /// Whether this is the process that writes files and tells people what happens.
  public var isFirst: Bool { share.index == 0 }

  /// Waits until all processes have come here.
  /// - Throws: `MPIError.lost`.
  public func wait() throws {
    var nothing = 0.0, none: [Tensor] = []
    try average(&nothing, &none)
  }

  /// Leaves the other processes at the end of the work. A process that ends without it ends all of them.
  public func finish() {
    #if MPI
      _ = MPI_Finalize()
    #endif
  }
}

/// Why processes cannot train together.
public enum MPIError: Error, Sendable, Equatable, CustomStringConvertible {
  /// MPI cannot be initialised, or not for several threads.
  case unusable
  /// Several processes were started, and each would do the whole work.
  case notBuilt
  /// Another process is gone.
  case lost

  public var description: String {
    switch self {
    case .unusable: "MPI cannot be used; start the program by mpirun of the MPI that it was built with, one with MPI_THREAD_SERIALIZED."
    case .notBuilt: "Several processes were started together, but the program was built without MPI; build it with --traits MPI."
    case .lost: "The other processes do not answer any more; go on from the last state."
    }
  }
}
