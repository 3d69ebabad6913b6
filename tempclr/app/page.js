// A sentence or a moment that is chosen plays the video from there; while it plays, the page shows where it is.
(() => {
  const video = () => document.querySelector(".tc-player video");
  const result = () => document.querySelector(".tc-result");

  function playFrom(seconds) {
    const player = video();
    if (!player) return;
    const play = () => {
      player.currentTime = seconds;
      player.play().catch(() => {}); // A file that cannot be played says so below the player.
    };
    if (player.readyState >= HTMLMediaElement.HAVE_METADATA) play();
    else player.addEventListener("loadedmetadata", play, { once: true });
  }

  function show(seconds) {
    const page = result();
    if (!page) return;
    const duration = Number(page.querySelector("[data-scrub]").dataset.scrub);
    const place = Math.min(seconds, duration);
    page.querySelector("i.tc-playhead").style.left = `${(100 * place) / duration}%`;
    const line = page.querySelector("line.tc-playhead");
    line.setAttribute("x1", place);
    line.setAttribute("x2", place);
    for (const row of page.querySelectorAll(".tc-row[data-seek]")) {
      const now = seconds >= Number(row.dataset.seek) && seconds < Number(row.dataset.end);
      if (now !== (row.getAttribute("aria-current") === "true")) row.setAttribute("aria-current", now);
    }
  }

  function follow() {
    const player = video();
    if (!player) return;
    show(player.currentTime);
    if (!player.paused && !player.ended) requestAnimationFrame(follow);
  }

  document.addEventListener("click", (event) => {
    const sentence = event.target.closest("[data-seek]");
    if (sentence) return playFrom(Number(sentence.dataset.seek));
    const plot = event.target.closest("[data-scrub]");
    if (!plot) return;
    const box = plot.getBoundingClientRect();
    playFrom((Number(plot.dataset.scrub) * (event.clientX - box.left)) / box.width);
  });

  // Events of media do not bubble, but they are caught on the way down.
  for (const name of ["play", "seeked"])
    document.addEventListener(name, (event) => event.target === video() && follow(), true);
  document.addEventListener(
    "error",
    (event) => {
      if (event.target === video()) document.querySelector(".tc-unplayable").hidden = false;
    },
    true,
  );

  // On a telephone the result that was asked for lies below the form: bring it into view, the player with it.
  window.tempclrShowResult = () => {
    if (video()?.currentTime) show(video().currentTime);
    const stage = document.querySelector("#tc-stage");
    if (!stage || stage.getBoundingClientRect().top < window.innerHeight / 2) return;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    stage.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
  };
})();
