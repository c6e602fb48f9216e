/// The extents of a tensor, outermost first. Pictures are `[N, H, W, C]`, tokens `[N, L, C]`.
public struct Shape: Hashable, Sendable, ExpressibleByArrayLiteral, CustomStringConvertible {
  /// The extents, outermost first.
  public let dimensions: [Int]

  /// - Parameter dimensions: the extents, outermost first.
  public init(_ dimensions: [Int]) { self.dimensions = dimensions }

  /// `[1, 64, 64, 4]`.
  public init(arrayLiteral elements: Int...) { self.init(elements) }

  /// The number of axes.
  public var rank: Int { dimensions.count }

  /// Whether weights of this shape are a matrix `[O, I]`, or a kernel over two or three axes, `[O, C, kh, kw]` or `[O, C, kf, kh, kw]`.
  var isKernel: Bool { [2, 4, 5].contains(rank) }

  /// The number of elements; `Int.max` where the product does not fit or an extent is negative, so that it never
  /// equals the size of anything real.
  public var count: Int {
    var product = 1
    for extent in dimensions {
      let (next, overflow) = product.multipliedReportingOverflow(by: extent)
      guard !overflow, extent >= 0 else { return Int.max }
      product = next
    }
    return product
  }

  /// The extent of an axis; a negative axis counts from the end.
  public subscript(axis: Int) -> Int { dimensions[axis < 0 ? dimensions.count + axis : axis] }

  /// All but the last extent, multiplied: the rows of the tensor seen as a matrix `[rows, columns]`.
  public var rows: Int { Shape(Array(dimensions.dropLast())).count }

  /// The last extent: channels of a picture, features of a token.
  public var columns: Int { dimensions.last ?? 1 }

  public var description: String { "[" + dimensions.map(String.init).joined(separator: ", ") + "]" }
}
