// A mask as a value: which pixels of a picture are to be drawn anew.

export class Mask {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    /** 1 where the picture is drawn anew, row by row. */
    this.pixels = new Uint8Array(width * height);
  }

  /** Sets the pixels whose middle lies in a disc; at least the one that it lies in. */
  disc(x, y, diameter, value) {
    const radius = diameter / 2;
    for (let row = Math.max(0, Math.floor(y - radius)); row <= Math.min(this.height - 1, y + radius); row++) {
      const across = row + 0.5 - y, reach = Math.sqrt(Math.max(0, radius * radius - across * across));
      if (Math.abs(across) > radius) continue;
      const from = Math.max(0, Math.ceil(x - reach - 0.5)), to = Math.min(this.width, Math.floor(x + reach + 0.5));
      if (from < to) this.pixels.fill(value, row * this.width + from, row * this.width + to);
    }
    const [column, row] = [Math.floor(x), Math.floor(y)];
    if (column >= 0 && column < this.width && row >= 0 && row < this.height) this.pixels[row * this.width + column] = value;
  }

  /** Sets what a brush touches on its way from one point to another. */
  stroke(from, to, diameter, value) {
    const count = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / Math.max(0.5, diameter / 8)));
    for (let i = 0; i <= count; i++) {
      this.disc(from.x + (to.x - from.x) * i / count, from.y + (to.y - from.y) * i / count, diameter, value);
    }
  }

  clear() { this.pixels.fill(0); }
  invert() { for (let i = 0; i < this.pixels.length; i++) this.pixels[i] = 1 - this.pixels[i]; }

  /** The lengths of runs of equal pixels, row by row. Those of the first run are not painted; it may have none. */
  get runs() {
    const runs = [0];
    let value = 0;
    for (const pixel of this.pixels) {
      if (pixel !== value) runs.push(0);
      value = pixel;
      runs[runs.length - 1]++;
    }
    return runs;
  }

  set runs(runs) {
    let place = 0;
    for (const [index, length] of runs.entries()) this.pixels.fill(index % 2, place, place += length);
  }

  /** The painted part, 0…1. */
  get share() {
    let sum = 0;
    for (const value of this.pixels) sum += value;
    return sum / this.pixels.length;
  }

  /** Draws the mask on a canvas of its size: `painted` where it is painted, `rest` elsewhere, each as [red, green, blue, alpha]. */
  draw(canvas, painted, rest) {
    const context = canvas.getContext("2d"), image = context.createImageData(this.width, this.height);
    const pixels = new Uint32Array(image.data.buffer);
    const [on, off] = [painted, rest].map((colour) => new Uint32Array(new Uint8Array(colour).buffer)[0]);
    for (let i = 0; i < pixels.length; i++) pixels[i] = this.pixels[i] ? on : off;
    context.putImageData(image, 0, 0);
  }

  /** A PNG: white where the picture is drawn anew, black elsewhere. */
  png() {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [this.width, this.height];
    this.draw(canvas, [255, 255, 255, 255], [0, 0, 0, 255]);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }
}
