import CLatentDiffusionKernels
import Foundation
import Synchronization

/// Where packed weights are between uses. Results do not depend on it.
public enum WeightResidency: Sendable, Equatable {
  /// In memory, from the moment of loading.
  case packed
  /// In memory from their first use on, for weights that a task may never need.
  case packedOnceUsed
  /// Matrices that would take more than this many bytes stay in their file. They are packed anew at each use, and the memory is freed after it. Smaller ones
  /// stay in memory, because packing them costs most for the memory that it saves.
  case streamed(above: Int)

  /// Whether a matrix of this many bytes is packed at loading and stays in memory.
  package func isPacked(_ bytes: Int) -> Bool {
    switch self {
    case .packed: true
    case .packedOnceUsed: false
    case .streamed(let most): bytes <= most
    }
  }
}

/// The weights of a matrix that was not packed at loading, and its panels once they are kept.
final class UnpackedWeights: Sendable {
  private struct State {
    var weights: WeightTensor?
    var storage: PackedStorage?
  }

  private let isKept: Bool
  private let state: Mutex<State>

  init(_ weights: WeightTensor, isKept: Bool) {
    self.isKept = isKept
    state = Mutex(State(weights: weights))
  }

  /// The panels. They are packed now unless they are kept already.
  func storage(of matrix: PackedMatrix, in context: ExecutionContext) throws -> PackedStorage {
    let bytes = matrix.panels * matrix.panelBytes
    // Waits while another thread packs the same matrix, if the panels are to be kept.
    let (weights, kept) = try state.withLock { state in
      if isKept, let weights = state.weights {
        let storage = PackedStorage(bytes: bytes)
        _ = try matrix.pack(weights, into: storage, checking: false, in: context)
        state = State(storage: storage)
      }
      return (state.weights, state.storage)
    }
    if let kept { return kept }
    let storage = PackedStorage(borrowing: bytes)
    if let weights { _ = try matrix.pack(weights, into: storage, checking: false, in: context) }
    return storage
  }
}

/// Bytes aligned for SIMD, written once and then only read.
final class PackedStorage: @unchecked Sendable {
  let pointer: UnsafeMutableRawPointer
  let bytes: Int
  /// The buffer that the bytes are borrowed from; nil if this object owns the bytes.
  private let buffer: TensorStorage?

  init(bytes: Int) {
    pointer = AlignedMemory.allocate(bytes: max(bytes, 64))
    self.bytes = bytes
    buffer = nil
  }

  /// Borrows bytes from the pool of buffers, for a short time.
  init(borrowing bytes: Int) {
    let buffer = TensorStorage(count: (bytes + 3) / 4)
    pointer = UnsafeMutableRawPointer(buffer.pointer)
    self.bytes = bytes
    self.buffer = buffer
  }

  deinit { if buffer == nil { AlignedMemory.deallocate(pointer, bytes: max(bytes, 64)) } }
}

extension PackedMatrix {
  /// Lays the weights out in panels, in parallel. Pages of the file are dropped from memory as soon as they have been packed.
  ///
  /// - Returns: false if a weight is infinite or not a number and `checking` is true.
  func pack(_ weights: WeightTensor, into storage: PackedStorage, checking: Bool, in context: ExecutionContext) throws -> Bool {
    guard panels > 0, inputs > 0 else { return true }
    let isFinite = Atomic(true)
    let run = max(1, WeightTensor.taskBytes / panelBytes)
    try context.parallel((panels + run - 1) / run) { task in
      let range = task * run..<min(panels, (task + 1) * run)
      let parts = outputs(inPanels: range).map { weights.rows($0) }
      for part in parts { part.readPages() }
      if checking, !parts.allSatisfy(\.isFinite) { isFinite.store(false, ordering: .relaxed) }
      pack(range, of: weights, into: storage)
      for part in parts { part.releasePages() }
    }
    weights.releasePages()
    return isFinite.load(ordering: .relaxed)
  }

  /// Packs some panels from the rows in memory, or from converted rows if panels have another format.
  private func pack(_ range: Range<Int>, of weights: WeightTensor, into storage: PackedStorage) {
    guard weights.elementType != weights.elementType.packed else {
      return pack(range, from: weights.data, rowBytes: weights.data.count / outputs, into: storage) { $0 }
    }
    let parts = outputs(inPanels: range)
    // This throws no error: the packed format holds all finite values, and others have been refused.
    let made = parts.compactMap { try? weights.rows($0).converted(to: weights.elementType.packed) }
    guard let first = parts.first, let half = made.first?.data, made.count == parts.count, !half.isEmpty else { return }
    let rows = made.dropFirst().reduce(half) { $0 + $1.data }
    pack(range, from: rows, rowBytes: half.count / first.count, into: storage) { output in
      first.contains(output) ? output - first.lowerBound : first.count + output - parts[parts.count - 1].lowerBound
    }
  }

  /// - Parameter row: the row of an output in the data.
  private func pack(_ range: Range<Int>, from data: Data, rowBytes: Int, into storage: PackedStorage, row: (_ output: Int) -> Int) {
    data.withUnsafeBytes { bytes in
      guard let source = bytes.baseAddress else { return }
      withUnsafeTemporaryAllocation(of: UnsafeRawPointer?.self, capacity: Self.panelWidth) { rows in
        guard let first = rows.baseAddress else { return }
        for panel in range {
          for column in 0..<Self.panelWidth { rows[column] = output(panel: panel, column: column).map { source + row($0) * rowBytes } }
          form.pack(first, channels: inputs / taps, taps: taps, into: storage.pointer + panel * panelBytes)
        }
      }
    }
  }
}

extension WeightTensor {
  /// How many bytes of rows a task takes. A quarter of a megabyte is still in the cache between checking and packing, and little of a mapped
  /// file is in memory at once.
  fileprivate static let taskBytes = 1 << 18

  /// False if an element is infinite or not a number. The check runs in parallel and drops the file's pages from memory as it goes.
  ///
  /// - Throws: `CancellationError`.
  public func isFinite(in context: ExecutionContext) throws -> Bool {
    guard shape.rank > 0, shape[0] > 0, data.count > 0 else { return true }
    let isFinite = Atomic(true)
    let run = max(1, Self.taskBytes / max(data.count / shape[0], 1))
    try context.parallel((shape[0] + run - 1) / run) { task in
      let part = rows(task * run..<min(shape[0], (task + 1) * run))
      part.readPages()
      if !part.isFinite { isFinite.store(false, ordering: .relaxed) }
      part.releasePages()
    }
    releasePages()
    return isFinite.load(ordering: .relaxed)
  }

  /// Maps all pages of the file that hold this tensor in one call, if the system can. This is much cheaper than a page fault for every few of them.
  fileprivate func readPages() {
    #if os(Linux)
      guard isMapped else { return }
      data.withUnsafeBytes { bytes in
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        let begin = Int(bitPattern: bytes.baseAddress) / page * page
        let end = Int(bitPattern: bytes.baseAddress) + bytes.count
        // MADV_POPULATE_READ needs Linux 5.14. If it is refused, page faults map the pages.
        if let pointer = UnsafeMutableRawPointer(bitPattern: begin) { _ = madvise(pointer, end - begin, 22) }
      }
    #endif
  }
}
