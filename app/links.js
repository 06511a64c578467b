// Links between pages of the board. Streamlit's own write the old page's address without its settings into the browser's
// history before they write the new page's, so that Back does not return to the page as it was. Here the address changes
// once, and Streamlit follows as it follows Back and Forward. Links also lead into the project that the page shows.
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
    if (link.href !== location.href) history.pushState({}, "", link.href);
    dispatchEvent(new PopStateEvent("popstate"));
  };

  addEventListener("pointerdown", keepProject, true);
  addEventListener("click", open, true);
})();
