import CLatentDiffusionKernels
import Foundation
import Synchronization

/// Where packed weights are between uses. Results do not depend on it.
public enum WeightResidency: Sendable, Equatable {
  /// In memory, from the moment of loading.
  case packed
  /// In memory from their first use on: for what a task may never need.
  case packedOnceUsed
  /// In their file, those that would take more than this many bytes: packed anew at each use, in memory that is given back after it. Smaller
  /// ones cost most to pack for what they take, and are in memory.
  case streamed(above: Int)

  /// What holds for a matrix of so many bytes.
  package func isPacked(_ bytes: Int) -> Bool {
    switch self {
    case .packed: true
    case .packedOnceUsed: false
    case .streamed(let most): bytes <= most
    }
  }
}

/// Where the panels of a matrix come from that were not packed at loading.
final class WeightOrigin: Sendable {
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

  /// The panels, packed now where they are not kept.
  func storage(of matrix: PackedMatrix, in context: ExecutionContext) throws -> PackedStorage {
    let bytes = matrix.panels * matrix.panelBytes
    // Who comes while another packs what will be kept waits for it.
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
  /// What the bytes were borrowed from.
  private let buffer: TensorStorage?

  init(bytes: Int) {
    pointer = AlignedMemory.allocate(bytes: max(bytes, 64))
    self.bytes = bytes
    buffer = nil
  }

  /// Bytes from the pool of buffers, for a short time.
  init(borrowing bytes: Int) {
    let buffer = TensorStorage(count: (bytes + 3) / 4)
    pointer = UnsafeMutableRawPointer(buffer.pointer)
    self.bytes = bytes
    self.buffer = buffer
  }

  deinit { if buffer == nil { AlignedMemory.deallocate(pointer, bytes: max(bytes, 64)) } }
}

extension PackedMatrix {
  /// Lays the weights out in panels, in parallel, and lets go of the file's pages on the way.
  ///
  /// - Returns: false where a weight is infinite or not a number, if that is to be checked.
  func pack(_ weights: WeightTensor, into storage: PackedStorage, checking: Bool, in context: ExecutionContext) throws -> Bool {
    guard panels > 0, inputs > 0 else { return true }
    let isFinite = Atomic(true)
    let run = max(1, WeightTensor.taskBytes / panelBytes)
    try context.parallel((panels + run - 1) / run) { task in
      let range = task * run..<min(panels, (task + 1) * run)
      let parts = outputs(inPanels: range).map { weights.rows($0) }
      for part in parts { part.readPages() }
      if checking, !parts.allSatisfy(\.isFinite) { isFinite.store(false, ordering: .relaxed) }
      weights.data.withUnsafeBytes { bytes in
        for panel in range { pack(panel, from: bytes, into: storage.pointer + panel * panelBytes) }
      }
      for part in parts { part.releasePages() }
    }
    weights.releasePages()
    return isFinite.load(ordering: .relaxed)
  }

  private func pack(_ panel: Int, from bytes: UnsafeRawBufferPointer, into target: UnsafeMutableRawPointer) {
    guard let source = bytes.baseAddress else { return }
    let rowBytes = bytes.count / outputs
    withUnsafeTemporaryAllocation(of: UnsafeRawPointer?.self, capacity: Self.panelWidth) { rows in
      for column in 0..<Self.panelWidth { rows[column] = output(panel: panel, column: column).map { source + $0 * rowBytes } }
      guard let rows = rows.baseAddress else { return }
      if elementType == .q8 {
        packBlocks(rows, into: target)
      } else {
        ck_pack_panel(Int32(elementType.bytes), inputs / taps, taps, rows, target)
        if isSplit {
          let values = target.assumingMemoryBound(to: Float.self)
          ProductFactors.split.takePanel(k: inputs, values, into: values)
        }
      }
    }
  }

  /// Blocks as they stand in a file to a panel as the kernel takes it: four inputs of each output together, 128 added.
  private func packBlocks(_ rows: UnsafePointer<UnsafeRawPointer?>, into target: UnsafeMutableRawPointer) {
    let width = Self.panelWidth, block = QuantizedBlocks.blockValues
    let values = target.assumingMemoryBound(to: UInt8.self)
    let scales = (target + inputs * width).assumingMemoryBound(to: UInt16.self)
    for column in 0..<width {
      for index in 0..<inputs / block {
        let place = rows[column].map { $0 + index * QuantizedBlocks.blockBytes }
        scales[index * width + column] = place?.loadUnaligned(as: UInt16.self) ?? 0
        for value in 0..<block {
          let q = place?.load(fromByteOffset: 2 + value, as: Int8.self) ?? 0
          let k = index * block + value
          values[(k / 4 * width + column) * 4 + k % 4] = UInt8(bitPattern: q) ^ 0x80
        }
      }
    }
  }
}

extension WeightTensor {
  /// Rows that a task takes: a quarter of a megabyte, so that what is checked is still in the cache when it is packed, and little of a mapped
  /// file is in memory at once.
  fileprivate static let taskBytes = 1 << 18

  /// False where an element is infinite or not a number; checked in parallel, and the file's pages are let go of on the way.
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

  /// Maps the pages of the file that hold this tensor in one call, where the system can: much cheaper than a fault for each few of them.
  fileprivate func readPages() {
    #if os(Linux)
      guard isMapped else { return }
      data.withUnsafeBytes { bytes in
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        let begin = Int(bitPattern: bytes.baseAddress) / page * page
        let end = Int(bitPattern: bytes.baseAddress) + bytes.count
        // MADV_POPULATE_READ, of Linux 5.14; where it is refused the pages come one by one.
        if let pointer = UnsafeMutableRawPointer(bitPattern: begin) { _ = madvise(pointer, end - begin, 22) }
      }
    #endif
  }
}
