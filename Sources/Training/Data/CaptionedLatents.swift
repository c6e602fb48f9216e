import LatentDiffusionComponents
import LatentDiffusionTrainingData
import Pipeline
import Tensor

/// Pictures of a folder as noise predictors learn from them: latents, and what captions make of the text encoder.
///
/// Source: diffusers' `train_text_to_image.py` and `train_text_to_image_sdxl.py`.
public struct CaptionedLatents: TrainingDataset {
  private var batches: BatchOrder.Batches
  private let autoencoder: any LatentAutoencoder
  private let conditioner: any TextConditioner
  private let objective: NoiseObjective
  private let dropout: CaptionDropout?
  private let cache: EncodingCache
  private let learns: (pictures: Bool, texts: Bool)

  /// - Parameters:
  ///   - order: of the pictures.
  ///   - autoencoder: encodes them, unless the cache has done so.
  ///   - conditioner: encodes captions.
  ///   - objective: draws noise and timesteps.
  ///   - dropout: leaves captions out now and then.
  ///   - cache: what has been encoded. Nothing of pictures where they are cropped at random: they are encoded at each step then.
  ///   - encodesTexts: whether texts are encoded at each step, because the text encoder learns; otherwise they are in the cache.
  public init(
    _ order: BatchOrder, encodedBy autoencoder: any LatentAutoencoder, _ conditioner: any TextConditioner, objective: NoiseObjective,
    dropout: CaptionDropout? = nil, cache: EncodingCache, encodesTexts: Bool = false
  ) throws(TrainingDataError) {
    batches = try order.batches()
    (self.autoencoder, self.conditioner, self.objective, self.dropout) = (autoencoder, conditioner, objective, dropout)
    (self.cache, learns) = (cache, (order.framing.crop == .random, encodesTexts))
  }

  public mutating func batch(
    _ number: Int, drawing generator: inout TorchGenerator, in context: ExecutionContext
  ) throws -> NoisePrediction.Batch {
    let batch = batches.batch(number)
    let encoded = try learns.pictures ? autoencoder.checkedEncode(batch.images(in: context), in: context) : cache.encoded(batch.pictures)
    var noise: any NoiseSource = generator
    let latents = autoencoder.scaled(encoded.sample(drawing: &noise))
    if let drawn = noise as? TorchGenerator { generator = drawn }
    let draw = try objective.draw(for: latents, with: &generator)
    let dropped = dropout?(batch.pictures.count, with: &generator)
    let prompts = batch.captions.enumerated().map { Prompt(dropped?[$0] == true ? "" : $1) }
    guard learns.texts else {
      let conditioning = try cache.conditioning(prompts, for: batch, by: conditioner)
      return NoisePrediction.Batch(latents: latents, draw: draw) { _ in conditioning }
    }
    return NoisePrediction.Batch(latents: latents, draw: draw) { [conditioner] recording in
      var conditioning = try conditioner.condition(ConditioningRequest(prompts, size: batch.size), in: recording)
      let sizes = try zip(prompts, batch.pictures).map { prompt, picture in
        Conditioning(
          rows: 1, inputs: try conditioner.sizeInputs(ConditioningRequest([prompt], size: batch.size, sizes: picture.sizes)))
      }
      conditioning.inputs.merge(try Conditioning.concatenated(sizes).inputs) { $1 }
      return conditioning
    }
  }
}
