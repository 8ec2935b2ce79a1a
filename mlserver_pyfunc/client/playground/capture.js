// Takes pictures with the camera and sounds with the microphone, if the browser allows it.
// Browsers allow it on pages of https and of localhost alone.

const canCapture = Boolean(navigator.mediaDevices?.getUserMedia);
const told = (tensor) => [tensor.name, tensor.description, model.description].join(" ").replace(/[_-]/g, " ");
const isFile = (tensor) => isBytes(tensor) && tensor.content_type !== "str" && tensor.shape.every((size) => size === 1 || size === -1);
const isPixels = (tensor) => !isBytes(tensor) && tensor.shape.length >= 3 && [1, 3, 4].includes(tensor.shape.at(-1));
const takesPicture = (tensor) => isPixels(tensor) || (isFile(tensor) && /\b(image|picture|photo|frame|png|jpe?g|webp|scan)/i.test(told(tensor)));
const takesSound = (tensor) => isFile(tensor) && /\b(audio|sound|voice|speech|speak|wave?|mp3|flac|music|recording)/i.test(told(tensor));

// The buttons that a tensor's field gets, each with the place that it shows things in.
function captureTools(tensor, read) {
  if (!canCapture) return [];
  return [
    ...(takesPicture(tensor) ? cameraTool(tensor, read) : []),
    ...(takesSound(tensor) && typeof MediaRecorder === "function" ? microphoneTool(tensor, read) : []),
  ];
}

async function streamOf(kind, what) {
  try {
    return await navigator.mediaDevices.getUserMedia({ [kind]: true });
  } catch (error) {
    showError(`the ${what} cannot be used: ${error.message}`);
    return null;
  }
}

const release = (stream) => stream.getTracks().forEach((track) => track.stop());

function cameraTool(tensor, read) {
  const place = make("div", { class: "preview" });
  const open = make("button", { type: "button", class: "small", onclick: start }, "Camera");
  async function start() {
    showError("");
    open.disabled = true;
    const stream = await streamOf("video", "camera");
    if (!stream) { open.disabled = false; return; }
    const video = make("video", { playsinline: true, "aria-label": `${tensor.name}, camera` });
    video.muted = true;
    video.srcObject = stream;
    const close = () => { release(stream); place.replaceChildren(); open.disabled = false; open.focus(); };
    const take = make("button", { type: "button", class: "small", disabled: true, onclick: () => {
      const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
      canvas.getContext("2d").drawImage(video, 0, 0);
      canvas.toBlob((blob) => { close(); readFile(new File([blob], "camera.png", { type: "image/png" }), read, place); }, "image/png");
    } }, "Take picture");
    video.addEventListener("playing", () => { take.disabled = false; });
    place.replaceChildren(video, make("div", { class: "tools" }, take, make("button", { type: "button", class: "small", onclick: close }, "Close camera")));
    video.play();
  }
  return [open, place];
}

function microphoneTool(tensor, read) {
  let recorder = null;
  const button = make("button", { type: "button", class: "small", onclick: toggle }, "Record");
  async function toggle() {
    if (recorder) { recorder.stop(); return; }
    showError("");
    button.disabled = true;
    const stream = await streamOf("audio", "microphone");
    button.disabled = false;
    if (!stream) return;
    const parts = [];
    recorder = new MediaRecorder(stream);
    recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
    recorder.addEventListener("stop", async () => {
      release(stream);
      recorder = null;
      button.textContent = "Record";
      try {
        await readFile(await wavOf(new Blob(parts)), read, button);
      } catch (error) {
        showError(`the recording cannot be read: ${error.message}`);
      }
    });
    recorder.start();
    button.textContent = "Stop recording";
  }
  return [button];
}

// Turns a recording into WAV with one channel of 16 bits: few libraries read what browsers record.
async function wavOf(blob) {
  const context = new AudioContext();
  const sound = await context.decodeAudioData(await blob.arrayBuffer()).finally(() => context.close());
  const channels = Array.from({ length: sound.numberOfChannels }, (_, i) => sound.getChannelData(i));
  const view = new DataView(new ArrayBuffer(44 + sound.length * 2));
  const write = (at, text) => [...text].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  write(0, "RIFF");
  view.setUint32(4, 36 + sound.length * 2, true);
  write(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, sound.sampleRate, true);
  view.setUint32(28, sound.sampleRate * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  write(36, "data");
  view.setUint32(40, sound.length * 2, true);
  for (let i = 0; i < sound.length; i++) {
    const level = channels.reduce((sum, each) => sum + each[i], 0) / channels.length;
    view.setInt16(44 + i * 2, Math.max(-1, Math.min(1, level)) * 32767, true);
  }
  return new File([view], "recording.wav", { type: "audio/wav" });
}
