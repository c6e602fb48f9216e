/// The edges of a picture, as ControlNets and adapters for edges take them. Source: Canny 1986, in the whole numbers of OpenCV's `Canny` with an
/// aperture of 3 and the L1 norm, bit by bit.
extension Picture {
  /// White edges on black. A transparent picture is seen on white.
  ///
  /// - Parameters:
  ///   - low: an edge goes on where the gradient is above this. It can be up to 2040.
  ///   - high: an edge begins where the gradient is above this. The two may be exchanged.
  public func cannyEdges(low: Double, high: Double) -> Picture {
    func threshold(_ value: Double) -> Int { value > 0 ? Int(min(value, 1e6)) : 0 }
    let gradients = Gradients(of: flattened())
    let edges = gradients.edges(low: threshold(min(low, high)), high: threshold(max(low, high)))
    return Picture(width: width, height: height, pixels: edges.flatMap { [UInt8](repeating: $0 ? 255 : 0, count: 3) })
  }
}

/// Of each pixel, in the colour that changes most.
private struct Gradients {
  private let width: Int
  private let height: Int
  private var x: [Int]
  private var y: [Int]

  init(of picture: Picture) {
    (width, height) = (picture.width, picture.height)
    (x, y) = (Array(repeating: 0, count: width * height), Array(repeating: 0, count: width * height))
    for row in 0..<height {
      for column in 0..<width {
        for colour in 0..<3 {
          // Sobel's kernels; the outermost pixels are repeated.
          func value(_ down: Int, _ right: Int) -> Int {
            let (nearRow, nearColumn) = (min(max(row + down, 0), height - 1), min(max(column + right, 0), width - 1))
            return Int(picture.pixels[(nearRow * width + nearColumn) * 3 + colour])
          }
          let across = value(-1, 1) + 2 * value(0, 1) + value(1, 1) - value(-1, -1) - 2 * value(0, -1) - value(1, -1)
          let down = value(1, -1) + 2 * value(1, 0) + value(1, 1) - value(-1, -1) - 2 * value(-1, 0) - value(-1, 1)
          let place = row * width + column
          if colour == 0 || abs(across) + abs(down) > abs(x[place]) + abs(y[place]) { (x[place], y[place]) = (across, down) }
        }
      }
    }
  }

  /// 0 outside of the picture.
  private func strength(_ row: Int, _ column: Int) -> Int {
    guard (0..<height).contains(row), (0..<width).contains(column) else { return 0 }
    return abs(x[row * width + column]) + abs(y[row * width + column])
  }

  /// Whether a pixel is stronger than both neighbours across its edge.
  private func isCrest(_ row: Int, _ column: Int) -> Bool {
    let (x, y) = (x[row * width + column], y[row * width + column]), own = strength(row, column)
    // tan 22.5° and tan 67.5°, times 2¹⁵.
    let low = abs(x) * 13573, high = low + abs(x) << 16, steepness = abs(y) << 15
    if steepness < low { return own > strength(row, column - 1) && own >= strength(row, column + 1) }
    if steepness > high { return own > strength(row - 1, column) && own >= strength(row + 1, column) }
    let side = (x < 0) == (y < 0) ? 1 : -1
    return own > strength(row - 1, column - side) && own > strength(row + 1, column + side)
  }

  /// Crests above `high`, and those above `low` that a path of crests joins to them.
  func edges(low: Int, high: Int) -> [Bool] {
    var isCandidate = Array(repeating: false, count: width * height), isEdge = isCandidate
    var open: [Int] = []
    for place in 0..<width * height {
      let (row, column) = (place / width, place % width), own = strength(row, column)
      guard own > low, isCrest(row, column) else { continue }
      isCandidate[place] = true
      guard own > high else { continue }
      isEdge[place] = true
      open.append(place)
    }
    while let place = open.popLast() {
      for row in max(place / width - 1, 0)...min(place / width + 1, height - 1) {
        for column in max(place % width - 1, 0)...min(place % width + 1, width - 1) {
          let next = row * width + column
          guard isCandidate[next], !isEdge[next] else { continue }
          isEdge[next] = true
          open.append(next)
        }
      }
    }
    return isEdge
  }
}
