/// A contiguous float32 array with a shape. All components exchange values of this type.
///
/// It is a value: copies share storage until one of them is written. Pictures and feature maps are channels-last
/// (`[N, H, W, C]`), so tokens `[N, H·W, C]` are the same bytes and a 1×1 convolution is a matrix product.
public struct Tensor: Sendable {
  /// The extents, outermost first.
  public let shape: Shape
  var storage: TensorStorage

  /// The identity of the storage: equal for all copies until one of them is written, and different from that of any other living tensor.
  public var id: ObjectIdentifier { ObjectIdentifier(storage) }

  /// A tensor of arbitrary values; every element must be written before it is read.
  init(uninitialized shape: Shape) {
    precondition(shape.count < Int.max / 8, "A tensor of shape \(shape) is larger than memory.")
    self.shape = shape
    storage = TensorStorage(count: shape.count)
  }

  /// A tensor without memory that is counted while it lives. A counting engine works with these.
  init(counted shape: Shape, by counter: WorkCounter) {
    self.init(shape: shape, storage: TensorStorage(count: shape.count, countedBy: counter))
  }

  /// A counted tensor of this shape if one of `tensors` is counted; nil if all have memory.
  static func counted(_ shape: Shape, like tensors: [Tensor]) -> Tensor? {
    tensors.lazy.compactMap(\.storage.counter).first.map { Tensor(counted: shape, by: $0) }
  }

  /// Whether the elements are only counted and have no memory.
  var isCounted: Bool { storage.counter != nil }

  /// The place of a result that begins at a residual: the residual's own if this is its last reference and its shape is the result's.
  ///
  /// Every element is read before it is written, by the same task.
  ///
  /// - Parameter new: makes a new place.
  static func result(
    _ shape: Shape, adding residual: inout Tensor?, new: (Shape) -> Tensor = { Tensor(uninitialized: $0) }
  ) -> (place: Tensor, isNew: Bool) {
    guard var place = residual.take() else { return (new(shape), true) }
    let isOurs = isKnownUniquelyReferenced(&place.storage) && place.shape == shape
    residual = place
    return isOurs ? (place, false) : (new(shape), true)
  }

  /// A tensor whose elements are all the same value.
  public init(repeating value: Float = 0, shape: Shape) {
    self.init(uninitialized: shape)
    storage.pointer.update(repeating: value, count: storage.count)
  }

  /// The elements in row-major order.
  /// - Precondition: `elements.count == shape.count`.
  public init(_ elements: [Float], shape: Shape) {
    precondition(elements.count == shape.count, "\(elements.count) elements cannot fill \(shape).")
    self.init(uninitialized: shape)
    elements.withUnsafeBufferPointer { source in
      if let base = source.baseAddress { storage.pointer.update(from: base, count: source.count) }
    }
  }

  /// A vector of the elements.
  public init(_ elements: [Float]) { self.init(elements, shape: [elements.count]) }

  private init(shape: Shape, storage: TensorStorage) {
    self.shape = shape
    self.storage = storage
  }

  /// The number of elements.
  public var count: Int { storage.count }

  /// The elements in row-major order, copied.
  public var elements: [Float] {
    isCounted ? Array(repeating: 0, count: count) : Array(UnsafeBufferPointer(start: storage.pointer, count: storage.count))
  }

  /// Whether both share their storage, and so have the same elements.
  public func isIdentical(to other: Tensor) -> Bool { storage === other.storage && shape == other.shape }

  /// The same elements under another shape.
  /// - Precondition: the counts are equal.
  public func reshaped(_ shape: Shape) -> Tensor {
    precondition(shape.count == count, "\(self.shape) cannot be seen as \(shape).")
    return Tensor(shape: shape, storage: storage)
  }

  /// The same elements in memory of their own.
  package func copied() -> Tensor {
    let copy = Tensor(uninitialized: shape)
    copy.mutablePointer.update(from: pointer, count: count)
    return copy
  }

  /// Read access for kernels in this module.
  var pointer: UnsafePointer<Float> { UnsafePointer(storage.pointer) }

  /// Write access for kernels in this module; only for a tensor without other references.
  var mutablePointer: UnsafeMutablePointer<Float> { storage.pointer }
}
