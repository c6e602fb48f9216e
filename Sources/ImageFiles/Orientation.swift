/// A picture's orientation: in which of eight ways its file stores it, as the camera was held. The numbers are those of EXIF's tag 0x0112.
enum Orientation: Int {
  case upright = 1
  case mirrored, upsideDown, flipped, transposed, quarterTurned, transversed, threeQuarterTurned

  /// Reads the TIFF structure of an EXIF block; nil if its first directory has no valid orientation.
  init?(exif bytes: [UInt8]) {
    let littleEndian: Bool
    switch bytes.prefix(4) {
    case [0x49, 0x49, 42, 0]: littleEndian = true
    case [0x4D, 0x4D, 0, 42]: littleEndian = false
    default: return nil
    }
    func integer(at offset: Int, _ size: Int) -> Int? { bytes.integer(at: offset, bytes: size, littleEndian: littleEndian) }
    guard let directory = integer(at: 4, 4), let entries = integer(at: directory, 2) else { return nil }
    for entry in 0..<entries {
      let offset = directory + 2 + entry * 12
      guard let tag = integer(at: offset, 2), let type = integer(at: offset + 2, 2), let count = integer(at: offset + 4, 4) else {
        return nil
      }
      guard tag == 0x0112 else { continue }
      let sizes = [1: 1, 3: 2, 4: 4]
      guard count == 1, let size = sizes[type], let value = integer(at: offset + 8, size) else { return nil }
      self.init(rawValue: value)
      return
    }
    return nil
  }

  private var swapsSides: Bool { rawValue >= 5 }
  private var isMirroredAcross: Bool { [2, 3, 7, 8].contains(rawValue) }
  private var isMirroredDown: Bool { [3, 4, 6, 7].contains(rawValue) }

  /// The picture as it is meant to be seen.
  func upright(_ picture: Picture) -> Picture {
    guard self != .upright else { return picture }
    let width = picture.width, height = picture.height
    let newWidth = swapsSides ? height : width
    let newHeight = swapsSides ? width : height
    func turn(_ plane: [UInt8], _ channels: Int) -> [UInt8] {
      var result: [UInt8] = []
      result.reserveCapacity(plane.count)
      for y in 0..<newHeight {
        for x in 0..<newWidth {
          let across = swapsSides ? y : x, down = swapsSides ? x : y
          let column = isMirroredAcross ? width - 1 - across : across
          let row = isMirroredDown ? height - 1 - down : down
          let start = (row * width + column) * channels
          result.append(contentsOf: plane[start..<start + channels])
        }
      }
      return result
    }
    return Picture(width: newWidth, height: newHeight, pixels: turn(picture.pixels, 3), alpha: picture.alpha.map { turn($0, 1) })
  }
}
