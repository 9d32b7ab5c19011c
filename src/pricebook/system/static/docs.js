// Shows the API document; everything it needs comes from this server.
window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#document",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  filter: true,
  // Swagger UI would otherwise send the document's address to validator.swagger.io.
  validatorUrl: null,
});
