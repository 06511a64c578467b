// Links between pages of the board. Streamlit's own write the old page's address without its settings into the browser's
// history before they write the new page's, so that Back does not return to the page as it was. Here the address changes
// once, and Streamlit follows as it follows Back and Forward. Links also lead into the project that the page shows.
//
// Streamlit follows late: what the server says of the page before arrives after a link was clicked, and Streamlit then
// writes that page's path back, with the new page's settings, as one more entry, to which Back leads. So once a link (or
// Back) has opened a page, no path that Streamlit writes counts; what opens a page calls History's own pushState.
(() => {
  const board = new URL("./", location.href);

  const pageLink = (event) => {
    const link = event.composedPath().find((node) => node instanceof HTMLAnchorElement);
    if (!link || link.origin !== board.origin || link.hasAttribute("disabled")) return null;
    if (!link.pathname.startsWith(board.pathname) || link.getAttribute("href").startsWith("#")) return null;
    return /^\w*$/.test(link.pathname.slice(board.pathname.length)) ? link : null;
  };

  const keepProject = (event) => {
    const link = pageLink(event);
    const project = new URLSearchParams(location.search).get("project");
    if (link && project && !new URLSearchParams(link.search).has("project")) {
      const target = new URL(link.href);
      target.searchParams.set("project", project);
      link.href = target;
    }
    return link;
  };

  const open = (event) => {
    const link = keepProject(event);
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    if (link.target && link.target !== "_self") return;
    const stays = link.pathname === location.pathname;
    if (stays && link.dataset.testid === "stSidebarNavLink") return; // Streamlit runs the page again as it is set
    event.preventDefault();
    event.stopPropagation();
    if (link.href !== location.href) History.prototype.pushState.call(history, {}, "", link.href);
    dispatchEvent(new PopStateEvent("popstate"));
  };

  let led = false;
  history.pushState = (state, unused, address) => {
    const away = new URL(address, location.href).pathname !== location.pathname;
    if (!led || !away) History.prototype.pushState.call(history, state, unused, address);
  };

  addEventListener("popstate", () => (led = true), true); // of Back, of the links here and of redirect.py
  addEventListener("pointerdown", keepProject, true);
  addEventListener("click", open, true);
})();
