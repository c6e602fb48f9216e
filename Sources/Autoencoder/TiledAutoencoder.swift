import LatentDiffusionComponents
import Tensor

/// An autoencoder that applies another one to whole pictures or to tiles.
public struct TiledAutoencoder: LatentAutoencoder {
  /// The autoencoder that is applied to each tile.
  public var base: any LatentAutoencoder
  /// Which pictures are tiled.
  public var tiling: AutoencoderTiling

  /// - Parameters:
  ///   - base: the autoencoder that is applied to each tile.
  ///   - tiling: which pictures are tiled.
  public init(_ base: any LatentAutoencoder, tiling: AutoencoderTiling = .automatic) { (self.base, self.tiling) = (base, tiling) }

  public var spatialScale: Int { base.spatialScale }
  public var latentChannels: Int { base.latentChannels }
  public var latentScale: Float { base.latentScale }
  public var latentShift: Float { base.latentShift }

  public func encode(_ image: Tensor, in context: ExecutionContext) throws -> EncodedPicture {
    try checkPicture(image)
    let tiles = tiling.tiles(height: image.shape[1] / spatialScale, width: image.shape[2] / spatialScale, scale: spatialScale)
    guard let tiles else { return try base.encode(image, in: context) }
    // Means and variances are blended in the same way, so they are joined along channels.
    let channels = latentChannels
    var columns: Int?
    let blended = try tiles.encode(image, scale: spatialScale, in: context) { tile, _ in
      let encoded = try base.checkedEncode(tile, in: context)
      let parts = [encoded.mode] + (encoded.gaussian.map { [$0.logVariance] } ?? [])
      // Tiles of a distribution and tiles of plain latents cannot meet.
      guard columns ?? parts.count == parts.count else {
        throw ComponentError.unexpectedShape(
          component: "The autoencoder", argument: "tiles", expected: "all of one kind", found: encoded.mode.shape)
      }
      columns = parts.count
      return Tensor.concatenated(parts, axis: -1)
    }
    guard blended.shape.columns > channels else { return .latents(blended) }
    return .distribution(
      DiagonalGaussian(mean: blended.channels(0..<channels), logVariance: blended.channels(channels..<2 * channels)))
  }

  public func decode(_ latents: Tensor, in context: ExecutionContext) throws -> Tensor {
    try decode(latents, framesOfClip: false, in: context)
  }

  public var decodesClips: Bool { base.decodesClips }

  /// A tile is a part of all the frames.
  public func decode(framesOfClip latents: Tensor, in context: ExecutionContext) throws -> Tensor {
    try decode(latents, framesOfClip: true, in: context)
  }

  private func decode(_ latents: Tensor, framesOfClip: Bool, in context: ExecutionContext) throws -> Tensor {
    try checkLatents(latents)
    let tiles = tiling.tiles(height: latents.shape[1], width: latents.shape[2], scale: spatialScale)
    guard let tiles else { return try base.checkedDecode(latents, framesOfClip: framesOfClip, in: context) }
    return try tiles.decode(latents, scale: spatialScale, in: context) { tile, _ in
      try base.checkedDecode(tile, framesOfClip: framesOfClip, in: context)
    }
  }

  public var decodesKeptPictures: Bool { base.decodesKeptPictures }

  public func decode(_ latents: Tensor, keeping picture: KeptPicture, in context: ExecutionContext) throws -> Tensor {
    try checkLatents(latents)
    let scale = spatialScale, tiles = tiling.tiles(height: latents.shape[1], width: latents.shape[2], scale: scale)
    guard let tiles else { return try base.decode(latents, keeping: picture, in: context) }
    return try tiles.decode(latents, scale: scale, in: context) { tile, corner in
      let rows = corner.row * scale..<(corner.row + tile.shape[1]) * scale
      let columns = corner.column * scale..<(corner.column + tile.shape[2]) * scale
      let part = KeptPicture(picture.image.part(rows: rows, columns: columns), new: picture.new.part(rows: rows, columns: columns))
      return try base.checkedDecode(tile, keeping: part, in: context)
    }
  }
}

/// Whether the autoencoder takes pictures as a whole or in tiles. Tiles overlap and are blended where they meet.
///
/// With tiles, the memory depends on the tile, not on the picture. The result differs a little, because normalisation and attention see one tile.
public enum AutoencoderTiling: Sendable, Equatable {
  /// Tiles of 512 pixels for pictures of 1024×1024 pixels or more, and otherwise the whole picture.
  case automatic
  /// The whole picture, whatever its size.
  case off
  /// Tiles for all pictures that are larger than one tile.
  case tiles(AutoencoderTiles)

  /// `automatic` tiles pictures of at least this many pixels.
  static let automaticPixels = 1024 * 1024
  /// The side of the tiles of `automatic`, in pixels.
  static let automaticSide = 512

  /// The tiles for latents of this size; nil: the whole picture.
  ///
  /// - Parameter scale: pixels a side for each latent a side.
  public func tiles(height: Int, width: Int, scale: Int) -> AutoencoderTiles? {
    let tiles: AutoencoderTiles
    switch self {
    case .off: return nil
    case .automatic:
      guard Shape([height, width, scale, scale]).count >= Self.automaticPixels else { return nil }
      tiles = AutoencoderTiles(latentSide: max(1, Self.automaticSide / scale))
    case .tiles(let given): tiles = given
    }
    return max(height, width) > tiles.latentSide ? tiles : nil
  }
}

/// Square tiles over latents. Source: diffusers' `AutoencoderKL.enable_tiling`.
public struct AutoencoderTiles: Sendable, Equatable {
  /// The side of a tile in latents; 64 are 512 pixels of Stable Diffusion.
  public let latentSide: Int
  /// The distance from one tile to the next, in latents.
  public let latentStep: Int

  /// - Parameters:
  ///   - latentSide: the side of a tile in latents.
  ///   - overlap: the part of a tile that it shares with the next one, below 1 (`tile_overlap_factor`).
  /// - Precondition: the side is positive, and the overlap is from 0 to below 1.
  public init(latentSide: Int, overlap: Double = 0.25) {
    precondition(latentSide > 0 && overlap >= 0 && overlap < 1, "Tiles of \(latentSide) latents that overlap by \(overlap).")
    self.latentSide = latentSide
    latentStep = max(1, Int(Double(latentSide) * (1 - overlap)))
  }

  /// How much more is computed than for the whole picture: the sum of the tiles' areas divided by the picture's area.
  public func areaFactor(height: Int, width: Int) -> Double {
    func covered(_ extent: Int) -> Int {
      stride(from: 0, to: extent, by: latentStep).reduce(0) { $0 + min(latentSide, extent - $1) }
    }
    return Double(covered(height)) / Double(max(height, 1)) * Double(covered(width)) / Double(max(width, 1))
  }

  /// A pass of one tile, whose upper left corner lies in this row and column of the input.
  typealias Pass = (_ tile: Tensor, _ corner: (row: Int, column: Int)) throws -> Tensor

  /// Decodes tile after tile. Each tile is blended with the tile above it and the tile to its left.
  func decode(_ latents: Tensor, scale: Int, in context: ExecutionContext, _ decode: Pass) rethrows -> Tensor {
    try run(
      latents, side: latentSide, step: latentStep, resultSide: latentSide * scale, resultStep: latentStep * scale, in: context, decode)
  }

  /// The same for the encoder. Its tiles cover the same latents, in pixels.
  func encode(_ image: Tensor, scale: Int, in context: ExecutionContext, _ encode: Pass) rethrows -> Tensor {
    try run(
      image, side: latentSide * scale, step: latentStep * scale, resultSide: latentSide, resultStep: latentStep, in: context, encode)
  }

  private func run(
    _ input: Tensor, side: Int, step: Int, resultSide: Int, resultStep: Int, in context: ExecutionContext,
    _ pass: Pass
  ) rethrows -> Tensor {
    let (height, width) = (input.shape[1], input.shape[2])
    let seam = resultSide - resultStep
    let tilesInRow = (width + step - 1) / step, count = (height + step - 1) / step * tilesInRow
    defer { context.progress?(count, count) }
    var result: Tensor?
    // All that blending needs: the last rows of the tiles above, one entry a column of tiles, and the last columns of the tile to the left.
    var above: [Tensor] = []
    for (i, top) in stride(from: 0, to: height, by: step).enumerated() {
      var edges: [Tensor] = []
      var before: Tensor?
      for (j, left) in stride(from: 0, to: width, by: step).enumerated() {
        context.progress?(i * tilesInRow + j, count)
        let tile = input.part(rows: top..<min(height, top + side), columns: left..<min(width, left + side))
        // Otherwise the idle buffers of the previous tile would add to the memory of this one.
        BufferPool.releaseIdle()
        var made = try pass(tile, (top, left))
        if i > 0 { made = made.blended(.below, above[j], over: seam) }
        if let before { made = made.blended(.beside, before, over: seam) }
        let (rows, columns) = (made.shape[1], made.shape[2])
        edges.append(made.part(rows: max(0, rows - seam)..<rows, columns: 0..<columns))
        before = made.part(rows: 0..<rows, columns: max(0, columns - seam)..<columns)
        let (row, column) = (top / step * resultStep, left / step * resultStep)
        let size: Shape = [input.shape[0], height * resultSide / side, width * resultSide / side, made.shape[3]]
        var whole = result.take() ?? Tensor(shape: size)
        let kept = made.part(
          rows: 0..<min(rows, resultStep, whole.shape[1] - row), columns: 0..<min(columns, resultStep, whole.shape[2] - column))
        whole.put(kept, row: row, column: column)
        result = consume whole
      }
      above = edges
    }
    return result ?? input
  }
}
