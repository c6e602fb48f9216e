import LatentDiffusionComponents
import Tensor

/// What tasks do to pictures `[N, H, W, C]` before and after the loop.
extension Tensor {
  /// A picture of another size, each of its pixels read from the pixel that `source` names.
  private func gathered(height: Int, width: Int, from source: (_ y: Int, _ x: Int) -> (Int, Int)) -> Tensor {
    let (oldHeight, oldWidth, channels) = (shape[1], shape[2], shape[3])
    let elements = elements
    var result: [Float] = []
    result.reserveCapacity(shape[0] * height * width * channels)
    for n in 0..<shape[0] {
      for y in 0..<height {
        for x in 0..<width {
          let (fromY, fromX) = source(y, x)
          let start = ((n * oldHeight + fromY) * oldWidth + fromX) * channels
          result.append(contentsOf: elements[start..<start + channels])
        }
      }
    }
    return Tensor(result, shape: [shape[0], height, width, channels])
  }

  /// The picture with borders that repeat its outermost pixels.
  func extended(left: Int, right: Int, top: Int, bottom: Int) -> Tensor {
    gathered(height: shape[1] + top + bottom, width: shape[2] + left + right) {
      (min(max($0 - top, 0), shape[1] - 1), min(max($1 - left, 0), shape[2] - 1))
    }
  }

  /// The upper left part of the picture.
  func cropped(height: Int, width: Int) -> Tensor {
    height == shape[1] && width == shape[2] ? self : gathered(height: height, width: width) { ($0, $1) }
  }

  /// The upper left pixel of every square of `side` pixels, which is what `interpolate` with mode `nearest` takes.
  func sampled(every side: Int) -> Tensor {
    gathered(height: shape[1] / side, width: shape[2] / side) { ($0 * side, $1 * side) }
  }

  /// The mean of every square of `side` pixels.
  func averaged(over side: Int) -> Tensor {
    let sum = (0..<side * side).reduce(Tensor(shape: [shape[0], shape[1] / side, shape[2] / side, shape[3]])) { sum, offset in
      sum + gathered(height: shape[1] / side, width: shape[2] / side) { ($0 * side + offset / side, $1 * side + offset % side) }
    }
    return sum / Float(side * side)
  }

  /// 1 from 0.5 up, 0 below.
  func binarized() -> Tensor { map { $0 < 0.5 ? 0 : 1 } }

  /// The only channel `count` times.
  func channelRepeated(_ count: Int) -> Tensor { Tensor.concatenated(Array(repeating: self, count: count), axis: -1) }

  /// Pictures 0…1 at another size, as a request's picture takes the size that is asked for: `[N, H, W, C]` → `[N, height, width, C]`. Values are rounded to
  /// 255ths, as the reference does it.
  /// - Precondition: rank 4, no empty picture, positive sides.
  public func resized(to size: PixelSize, mode: ResizeMode) -> Tensor {
    let (height, width) = (shape[1], shape[2])
    guard mode != .stretch, width != size.width || height != size.height else { return resampled(height: size.height, width: size.width) }
    // As diffusers has it: the side that must be cut, or that is too short, is rounded down from the other's factor.
    let isWider = size.width * height > width * size.height
    let widthDecides = isWider == (mode == .crop)
    let inner = PixelSize(
      width: max(1, widthDecides ? size.width : width * size.height / height),
      height: max(1, widthDecides ? height * size.width / width : size.height))
    let picture = resampled(height: inner.height, width: inner.width)
    // Where the picture's corner lies in the result, before it where something is cut off.
    let (left, top) = (size.width / 2 - inner.width / 2, size.height / 2 - inner.height / 2)
    let placed = picture.gathered(height: size.height, width: size.width) {
      (min(max($0 - top, 0), inner.height - 1), min(max($1 - left, 0), inner.width - 1))
    }
    guard mode == .fill, left > 0 || top > 0 else { return placed }
    // What fills the rest is the edge as Pillow enlarges an empty part of a picture: its cubic filter takes 9/8 of the outermost pixel and takes
    // 1/8 of the next one away.
    let inwards = picture.gathered(height: size.height, width: size.width) {
      (
        top > 0 ? $0 < top ? min(1, inner.height - 1) : max(inner.height - 2, 0) : min($0, inner.height - 1),
        left > 0 ? $1 < left ? min(1, inner.width - 1) : max(inner.width - 2, 0) : min($1, inner.width - 1)
      )
    }
    let filled = ((placed * 1.125 - inwards * 0.125).clamped(to: 0...1) * 255).map { ($0 + 1e-3).rounded() / 255 }
    let isInside = Tensor(
      (0..<size.height).flatMap { y in
        (0..<size.width).map { x in (top..<top + inner.height).contains(y) && (left..<left + inner.width).contains(x) ? Float(1) : 0 }
      }, shape: [1, size.height, size.width, 1]
    ).channelRepeated(shape[3]).repeated(shape[0])
    return isInside * placed + isInside.map { 1 - $0 } * filled
  }

  /// The picture at another size, in 8 bits as the reference does it: values are rounded to 255ths before and after.
  func resampled(height: Int, width: Int, by filter: ResamplingFilter = .lanczos) -> Tensor {
    guard height != shape[1] || width != shape[2] else { return self }
    let resampling = PictureResampling(filter, width: shape[2], height: shape[1], toWidth: width, toHeight: height)
    let pictures = (0..<shape[0]).map { row -> Tensor in
      let bytes = rows(row..<row + 1).pictureBytes
      return Tensor(resampling(bytes, channels: shape[3]).map { Float($0) / 255 }, shape: [1, height, width, shape[3]])
    }
    return Tensor.concatenated(pictures, axis: 0)
  }
}
